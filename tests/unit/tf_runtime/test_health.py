import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
import urllib3

from tf_reconcile.errors import ConfigError, Transient
from tf_reconcile.result import Held, PassReport
from tf_runtime.health import StatusServer
from tf_runtime.metrics import DaemonMetrics


def double(query: Mapping[str, str]) -> dict[str, int]:
    if query.get("number") == "dice":
        raise Transient("dice", "roll", reason="not here")
    if not query.get("number", "").isdecimal():
        raise ValueError("number: allowed: digits")
    return {"doubled": 2 * int(query["number"])}


@contextmanager
def serving(*, is_ready: bool = True, is_live: bool = True, token: str | None = None) -> Iterator[str]:
    metrics = DaemonMetrics("test")
    metrics.record(PassReport(held=(Held(subject="a", reason="no VLAN"),)), duration_s=0.5, now_s=1000.0)
    server = StatusServer(
        listen=("127.0.0.1", 0),
        registry=metrics.registry,
        status=lambda: {"held": 1},
        is_ready=lambda: is_ready,
        is_live=lambda: is_live,
        token=token,
        pages={"/double": double},
    )
    server.start()
    try:
        host, port = server.address
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def get(url: str, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager() as pool:
        return pool.request("GET", url, headers=headers, retries=False, timeout=10)


def test_health_readiness_and_status_are_served() -> None:
    with serving() as url:
        assert get(f"{url}/healthz").status == 200
        assert get(f"{url}/readyz").status == 200
        assert json.loads(get(f"{url}/status").data) == {"held": 1}
        assert get(f"{url}/other").status == 404


def test_a_page_of_the_daemons_own_takes_arguments_and_says_what_is_wrong_with_them() -> None:
    with serving() as url:
        assert json.loads(get(f"{url}/double?number=21").data) == {"doubled": 42}
        wrong = get(f"{url}/double?number=")
        assert (wrong.status, wrong.data) == (400, b"number: allowed: digits\n")
        assert get(f"{url}/double?number=dice").status == 503
        assert get(f"{url}/other").data == b"known: /healthz /readyz /metrics /status /double\n"


def test_what_is_not_ready_or_stuck_answers_503() -> None:
    with serving(is_ready=False, is_live=False) as url:
        assert get(f"{url}/healthz").status == 503
        assert get(f"{url}/readyz").status == 503


def test_metrics_carry_the_prefix_and_how_much_is_held() -> None:
    with serving() as url:
        text = get(f"{url}/metrics").data.decode()
    assert 'tf_vsphere_held{daemon="test"} 1.0' in text
    assert 'tf_vsphere_in_sync{daemon="test"} 0.0' in text
    assert 'tf_vsphere_last_success_timestamp_seconds{daemon="test"} 1000.0' in text


def test_with_a_token_nothing_is_told_without_it() -> None:
    with serving(token="t0ken") as url:
        assert get(f"{url}/status").status == 401
        assert get(f"{url}/status", {"Authorization": "Bearer wrong"}).status == 401
        assert get(f"{url}/status", {"Authorization": "Bearer t0ken"}).status == 200


def test_off_loopback_a_token_is_required() -> None:
    with pytest.raises(ConfigError, match=r"status\.token_file"):
        StatusServer(
            listen=("198.51.100.1", 0),
            registry=DaemonMetrics("test").registry,
            status=dict,
            is_ready=lambda: True,
            is_live=lambda: True,
        )


def test_an_address_that_cannot_be_had_is_named() -> None:
    blocked = StatusServer(
        listen=("198.51.100.250", 9999),
        registry=DaemonMetrics("test").registry,
        status=dict,
        is_ready=lambda: True,
        is_live=lambda: True,
        token="t",
        file="x.yaml",
    )
    with pytest.raises(ConfigError, match=r"x\.yaml: status\.listen: cannot listen.*198\.51\.100\.250:9999"):
        blocked.start()


def test_a_client_that_goes_away_in_the_middle_leaves_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as url:
        host, _, port = url.removeprefix("http://").partition(":")
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST at close
        assert get(f"{url}/healthz").status == 200
    assert capsys.readouterr().err == ""
