"""What holds for every call: the token, the homepage, errors in plain text, TLS, and how the process ends."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import urllib3

from lab.controller import Controller
from tests.contract.tf_controller.recording import load
from tf_api.client import ConfigApi
from tf_reconcile.errors import Conflict, Transient

TOKEN = "correct horse"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Controller]:
    with Controller(token=TOKEN) as controller:
        yield controller


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    with Controller() as running:
        yield running


def get(url: str, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
    return urllib3.PoolManager(retries=False).request("GET", url, headers=headers or {})


@pytest.mark.parametrize("path", ["/", "/domains", "/watch?resource_type=domain", "/aaa-mode"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Auth-Token": "wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer wrong"},
        {"X-Auth-Token": "é"},
    ],
)
def test_without_the_token_everything_is_401_in_json(guarded: Controller, path: str, headers: dict[str, str]) -> None:
    answer = get(guarded.url + path, headers)
    assert (answer.status, answer.headers["Content-Type"]) == (401, "application/json")
    assert json.loads(answer.data)["error"]["code"] == 401


@pytest.mark.parametrize("headers", [{"X-Auth-Token": TOKEN}, {"Authorization": f"Bearer {TOKEN}"}])
def test_with_the_token_it_answers(guarded: Controller, headers: dict[str, str]) -> None:
    assert get(f"{guarded.url}/domains", headers).status == 200


def test_the_client_sends_the_token_and_says_so_when_it_is_refused(guarded: Controller) -> None:
    assert guarded.api().list("domain") != []
    with pytest.raises(Transient, match="HTTP 401"):
        ConfigApi([guarded.url], token="wrong").list("domain")


def test_a_token_that_is_refused_is_read_again_and_the_request_sent_once_more(guarded: Controller) -> None:
    tokens = iter(["expired too", TOKEN])
    api = ConfigApi([guarded.url], token="expired", read_token=lambda: next(tokens))
    with pytest.raises(Transient, match="HTTP 401"):
        api.create("domain", {"fq_name": ["renewed"]})
    assert api.create("domain", {"fq_name": ["renewed"]})
    assert api.list("domain")
    assert next(tokens, None) is None


def test_a_stream_that_is_refused_has_the_token_read_for_the_next_one(guarded: Controller) -> None:
    api = ConfigApi([guarded.url], token="expired", read_token=lambda: TOKEN)
    with pytest.raises(Transient, match="HTTP 401"):
        api.open_stream(guarded.url, "/watch?resource_type=domain", idle_timeout_s=5.0)
    api.open_stream(guarded.url, "/watch?resource_type=domain", idle_timeout_s=5.0).close()


def test_homepage_names_only_what_the_real_server_names_and_what_is_served(controller: Controller) -> None:
    recorded = load("1-core.jsonl")[0].answer
    ours = json.loads(get(f"{controller.url}/").data)
    known = {tuple(sorted(relative(link, recorded["href"]).items(), key=str)) for link in recorded["links"]}
    links = [relative(link, ours["href"]) for link in ours["links"]]
    assert [link for link in links if tuple(sorted(link.items(), key=str)) not in known] == []
    for link in links:
        if link["rel"] == "collection":
            assert get(controller.url + str(link["href"])).status == 200


def relative(link: dict[str, dict[str, str]], base: str) -> dict[str, str | None]:
    return {**link["link"], "href": link["link"]["href"].removeprefix(base)}


def test_an_address_in_a_reply_is_what_the_caller_called_the_server(controller: Controller) -> None:
    port = controller.url.rpartition(":")[2]
    answer = json.loads(get(f"{controller.url}/domains", {"Host": f"tf.example:{port}"}).data)
    assert answer["domains"][0]["href"].startswith(f"http://tf.example:{port}/domain/")


def test_a_body_that_is_no_json_or_too_large_is_refused_and_the_server_goes_on(controller: Controller) -> None:
    pool = urllib3.PoolManager(retries=False)
    url = f"{controller.url}/virtual-machines"
    body = json.dumps({"virtual-machine": {"fq_name": ["x" * (1 << 20)]}})
    assert pool.request("POST", url, body="[]", headers={"Content-Type": "application/json"}).status == 500
    assert pool.request("POST", url, body="{}", headers={"Content-Type": "text/plain"}).status == 500
    assert pool.request("POST", url, body=body, headers={"Content-Type": "application/json"}).status == 413
    assert get(f"{controller.url}/domains").status == 200


def test_names_outside_ascii_and_separators_come_back_as_they_were(controller: Controller) -> None:
    api = controller.api()
    name = 'Ünïcode / "quoted" %2f 日本'
    uuid = api.create("virtual-machine", {"fq_name": [name], "display_name": name})
    assert api.fqname_to_uuid("virtual-machine", [name]) == uuid
    assert [found["uuid"] for found in api.list("virtual-machine", filters={"display_name": name})] == [uuid]
    with pytest.raises(Conflict):
        api.create("virtual-machine", {"fq_name": [name]})


@contextmanager
def silent_peers(url: str, number: int) -> Iterator[None]:
    """Hold connections open on which nothing is ever said."""
    host, port = url.rpartition("//")[2].split(":")
    with ExitStack() as peers:
        for _ in range(number):
            peers.enter_context(socket.create_connection((host, int(port))))
        yield


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")
    files = {"certificate_file": str(directory / "crt.pem"), "key_file": str(directory / "key.pem")}
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    command += ["-subj", "/CN=tf", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, "-out", files["certificate_file"], "-keyout", files["key_file"]], check=True, capture_output=True
    )
    return files


def test_over_tls_the_certificate_is_verified(certificate: dict[str, str]) -> None:
    with Controller(settings={"tls": certificate}) as controller:
        assert controller.url.startswith("https://")
        trusting = ConfigApi([controller.url], ca_file=Path(certificate["certificate_file"]))
        assert trusting.list("domain") != []
        trusting.close()
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            ConfigApi([controller.url]).list("domain")


def test_over_tls_silent_peers_and_those_that_speak_plain_http_hold_up_nobody(certificate: dict[str, str]) -> None:
    with Controller(settings={"tls": certificate}) as controller, silent_peers(controller.url, 20):
        api = ConfigApi([controller.url], ca_file=Path(certificate["certificate_file"]), timeout_s=9.0)
        plain = controller.url.replace("https", "http")
        for _ in range(10):
            with pytest.raises(urllib3.exceptions.HTTPError):
                get(plain)
        assert api.list("domain") != []
        assert api.calls["list"] == 1
        api.close()


def test_silent_peers_hold_up_nobody(controller: Controller) -> None:
    with silent_peers(controller.url, 20):
        api = controller.api(timeout_s=9.0)
        assert api.list("domain") != []
        assert api.calls["list"] == 1


def test_the_process_ends_with_status_0_when_asked_to_even_with_a_watch_open(controller: Controller) -> None:
    with Controller() as other:
        stream = urllib3.PoolManager().request("GET", f"{other.url}/watch?resource_type=domain", preload_content=False)
        next(iter(stream.stream()))
        assert other.terminate() == 0
        stream.close()


def test_the_service_manager_is_told_that_it_is_ready_alive_and_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(10)
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    with manager:
        with Controller(directory=tmp_path) as controller:
            told = [manager.recv(1000).decode() for _ in range(4)]
            assert told == ["READY=1", f"STATUS=serving {controller.url}", "WATCHDOG=1", "WATCHDOG=1"]
        manager.settimeout(0.1)
        while (last := manager.recv(1000)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
