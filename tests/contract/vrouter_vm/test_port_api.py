"""The port API over real HTTP, call by call as TF's clients make them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.vrouter_host import FakeFilters, FakeHost, PlainInterfaces, make_network, make_view
from tf_reconcile.errors import ConfigError
from vrouter_vm.gateway_mac import MacRange
from vrouter_vm.model import MacAddress, NetworkView, VnUuid
from vrouter_vm.port_api import PortApi, PortServer
from vrouter_vm.port_files import PortStore
from vrouter_vm.reconciler import Reconciler
from vrouter_vm.status import StatusBoard

VN = "00000000-0000-4000-b000-000000000005"
ABSENT = "00000000-0000-4000-8000-00000000dead"
NETWORK = make_network(VN, 5, "10.1.1.0/24", "fd00:1::/64")


def vmi(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def body(number: int = 1, /, **changes: Any) -> dict[str, object]:
    port: dict[str, object] = {
        "id": vmi(number),
        "instance-id": f"00000000-0000-4000-9000-{number:012x}",
        "vn-id": VN,
        "vm-project-id": "00000000-0000-4000-a000-000000000001",
        "display-name": f"guest-{number}",
        "system-name": vmi(number),
        "ip-address": f"10.1.1.{10 + number}",
        "ip6-address": "::",
        "mac-address": f"00:50:56:aa:00:{number:02x}",
        "type": 2,
        "rx-vlan-id": 100 + number,
        "tx-vlan-id": 100 + number,
        "author": "whoever",
        "time": "whenever",
    }
    return port | changes


class Site:
    """The API, over a fake host; a pass runs whenever the API wakes the loop."""

    def __init__(self, directory: Path, address: tuple[str, int]) -> None:
        self.address = address
        self.directory = directory
        self.host = FakeHost()
        self.board = StatusBoard()
        self.known = make_view(NETWORK)
        self.jobs: list[tuple[float, Callable[[], None]]] = []
        self.store = PortStore(directory, on_change=lambda: None, clock=lambda: 1000.0)
        self.store.load()
        self._turn = threading.Lock()
        self._reconciler = Reconciler(
            ports=self.store,
            networks=self,
            interfaces=PlainInterfaces(),
            forwarding=self.host,
            filtering=FakeFilters(self.host),
            gateway_macs=MacRange(first=MacAddress("00:50:56:00:00:00"), last=MacAddress("00:50:56:3f:ff:ff")),
            board=self.board,
        )
        api = PortApi(
            self.store,
            self.board,
            wake=lambda: threading.Thread(target=self.turn).start(),
            wake_full=lambda: threading.Thread(target=self.turn, kwargs={"is_full": True}).start(),
            clock=lambda: 1000.0,
            stale_timeout_s=60.0,
            later=lambda delay_s, job: self.jobs.append((delay_s, job)),
        )
        self.app = api.app

    def take_changes(self) -> frozenset[VnUuid]:
        """The network is always the same."""
        return frozenset()

    def view(self, needed: frozenset[VnUuid], *, of: frozenset[VnUuid] | None = None) -> NetworkView:
        return self.known

    def turn(self, *, is_full: bool = False) -> None:
        with self._turn:
            self._reconciler.run_once(is_full=is_full)

    def call(self, method: str, path: str, given: object = None, *, raw: bytes | None = None) -> tuple[int, str, Any]:
        """Status code, reason and JSON of an answer."""
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        payload = raw if raw is not None else None if given is None else json.dumps(given).encode()
        connection.request(method, path, payload)
        answer = connection.getresponse()
        try:
            assert answer.getheader("Content-Type") == "application/json"
            return answer.status, answer.reason, json.loads(answer.read())
        finally:
            connection.close()

    def settled(self) -> dict[str, Any]:
        ports: dict[str, Any] = self.call("GET", "/ports?settled_s=10")[2]["ports"]
        return ports


class Front:
    """What the one server of this module serves: the site of the test that runs."""

    site: Site

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return self.site.app(environ, start_response)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Front, PortServer]]:
    front = Front()
    running = PortServer(front, listen=("127.0.0.1", 0))
    running.start()
    yield front, running
    running.stop()


@pytest.fixture
def site(tmp_path: Path, server: tuple[Front, PortServer]) -> Site:
    front, running = server
    front.site = Site(tmp_path, running.address)
    return front.site


OK: tuple[int, str, dict[str, str]] = (200, "OK", {})


def failed(text: str) -> tuple[int, str, dict[str, str]]:
    return 500, "OK", {"error": f"{{ {text} }}"}


UNKNOWN = (404, "OK", {"error": "Unknown Request"})
NOT_FOUND = (404, "OK", {"error": "{ Not Found }"})


def test_a_port_is_on_disk_when_it_is_acknowledged(site: Site) -> None:
    assert site.call("POST", "/port", body()) == OK
    assert json.loads((site.directory / vmi(1)).read_text())["rx-vlan-id"] == 101
    assert site.store.ports()[0].added_at == 1000.0, "author and time of the client are ignored"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (body(**{"mac-address": ""}), "Invalid MAC, Use xx:xx:xx:xx:xx:xx format"),
        (body(**{"rx-vlan-id": "101"}), "Invalid or missing field for <rx-vlan-id>"),
        (body(**{"rx-vlan-id": 4095}), "Invalid VLAN 4095 in <rx-vlan-id>, allowed: 1..4094, or -1 for none"),
        ("a port", 'Unexpected Json string ==> "a port"'),
    ],
)
def test_a_bad_port_is_refused_with_the_reason(site: Site, given: object, text: str) -> None:
    assert site.call("POST", "/port", given) == failed(text)
    assert [*site.directory.iterdir()] == []


def test_what_is_no_json_is_refused(site: Site) -> None:
    assert site.call("POST", "/port", raw=b"{") == failed("Invalid Json string ==> {")
    assert site.call("POST", "/port", raw=b"[" * 100_000)[:2] == (500, "OK")


def test_an_array_is_all_or_none_and_always_a_success(site: Site) -> None:
    assert site.call("POST", "/port", [body(1), body(2, **{"tx-vlan-id": 0})]) == OK
    assert site.store.ports() == ()
    assert site.call("POST", "/port", [body(1), body(2)]) == OK
    assert len(site.store.ports()) == 2
    assert site.call("POST", "/port", [body(3), 5]) == OK
    assert len(site.store.ports()) == 2


def test_a_port_whose_file_cannot_be_written_is_an_error(site: Site) -> None:
    site.directory.rmdir()
    status, _, answer = site.call("POST", "/port", body())
    assert status == 500
    assert "Writing of Json string to file failed" in answer["error"]
    assert site.store.ports() == ()


def test_a_delete_is_a_success_whether_or_not_there_was_a_port(site: Site) -> None:
    site.call("POST", "/port", body())
    assert site.call("DELETE", f"/port/{vmi(1)}") == OK
    assert site.call("DELETE", f"/port/{vmi(1)}") == OK
    assert [*site.directory.iterdir()] == []


def test_a_repeated_post_changes_nothing_but_a_delete_in_between_does(site: Site) -> None:
    site.call("POST", "/port", body())
    site.call("POST", "/port", body(**{"rx-vlan-id": 9, "tx-vlan-id": 9}))
    assert site.settled()[vmi(1)]["vlan"] == 101
    site.call("DELETE", f"/port/{vmi(1)}")
    site.call("POST", "/port", body(**{"rx-vlan-id": 9, "tx-vlan-id": 9}))
    assert site.settled()[vmi(1)]["vlan"] == 9


def test_a_port_is_found_only_when_it_is_resolved(site: Site) -> None:
    site.known = make_view(missing={VN: "TF is being asked"})
    site.call("POST", "/port", body())
    assert site.call("GET", f"/port/{vmi(1)}") == NOT_FOUND
    site.turn()
    assert site.call("GET", f"/port/{vmi(1)}") == NOT_FOUND
    site.known = make_view(NETWORK)
    site.turn()
    status, reason, answer = site.call("GET", f"/port/{vmi(1)}")
    assert (status, reason) == (200, "OK")
    assert answer == {
        "id": vmi(1),
        "instance-id": body()["instance-id"],
        "vn-id": VN,
        "vm-project-id": body()["vm-project-id"],
        "mac-address": "00:50:56:aa:00:01",
        "system-name": vmi(1),
        "rx-vlan-id": 101,
        "tx-vlan-id": 101,
        "vhostuser-mode": 0,
        "ip-address": "10.1.1.11",
        "plen": 24,
        "dns-server": "0.0.0.0",
        "gateway": "10.1.1.1",
        "author": "vrouter-agent",
        "time": "1970-Jan-01 00:16:40.000000",
    }
    site.call("DELETE", f"/port/{vmi(1)}")
    assert site.call("GET", f"/port/{vmi(1)}") == NOT_FOUND


def test_the_ipv6_side_of_a_port_has_keys_of_its_own(site: Site) -> None:
    site.call("POST", "/port", body(**{"ip6-address": "fd00:1::11"}))
    site.turn()
    answer = site.call("GET", f"/port/{vmi(1)}")[2]
    assert (answer["v6-ip-address"], answer["v6-gateway"], answer["v6-dns-server"]) == ("fd00:1::11", "fd00:1::1", "::")


def test_enable_and_disable_are_idempotent_and_kept(site: Site) -> None:
    site.call("POST", "/port", body())
    assert site.settled()[vmi(1)]["state"] == "prepared", "a port of type 2 starts disabled"
    for verb, state in (("enable", "active"), ("enable", "active"), ("disable", "prepared"), ("disable", "prepared")):
        assert site.call("PUT", f"/{verb}-port/{vmi(1)}") == OK
        assert site.settled()[vmi(1)]["state"] == state
        assert json.loads((site.directory / vmi(1)).read_text())["link-state"] == int(verb == "enable")


def test_enable_says_what_is_wrong(site: Site) -> None:
    site.call("POST", "/port", body(**{"type": 1}))
    assert site.call("PUT", f"/enable-port/{ABSENT}") == failed(f"Port Not found {ABSENT}")
    assert site.call("PUT", f"/disable-port/{vmi(1)}") == failed(f"Incorrect Port type for {vmi(1)}")


def test_after_syncports_the_ports_that_were_not_posted_again_go(site: Site) -> None:
    site.call("POST", "/port", [body(1), body(2)])
    assert site.call("POST", "/syncports") == OK
    site.call("POST", "/port", body(2))
    ((delay_s, job),) = site.jobs
    assert delay_s == 60.0
    assert len(site.store.ports()) == 2, "not before the time is over"
    job()
    assert [port.vmi_uuid for port in site.store.ports()] == [vmi(2)]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/port"),
        ("PUT", "/port"),
        ("POST", f"/port/{vmi(1)}"),
        ("GET", f"/port/{vmi(1).upper().replace('0', 'A')}"),
        ("GET", f"/port/{vmi(1)}x"),
        ("DELETE", f"/port/{vmi(1).replace('-', '')}"),
        ("GET", f"/enable-port/{vmi(1)}"),
        ("POST", "/vm"),
        ("GET", f"/vm/{vmi(1)}"),
        ("GET", "/vm-cfg/guest-1"),
        ("POST", "/gateway"),
        ("DELETE", "/gateway"),
    ],
)
def test_every_other_request_is_unknown(site: Site, method: str, path: str) -> None:
    assert site.call(method, path, body() if method == "POST" else None) == UNKNOWN


def test_ports_tells_where_each_one_is(site: Site) -> None:
    site.call("POST", "/port", [body(1, **{"link-state": 1}), body(2, **{"rx-vlan-id": 101, "tx-vlan-id": 101})])
    ports = site.settled()
    assert ports[vmi(1)] == {
        "state": "active",
        "reason": "",
        "vif": "eth1.101",
        "vlan": 101,
        "vrf": "v5",
        "virtual_network": VN,
        "network_name": VN,
        "address": "10.1.1.11",
        "addresses": ["10.1.1.11"],
        "mac": "00:50:56:aa:00:01",
        "display_name": "guest-1",
    }
    assert ports[vmi(2)]["state"] == "held"
    assert ports[vmi(2)]["reason"] == f"VLAN 101 belongs to port {vmi(1)} (guest-1)"
    assert ports[vmi(2)]["vif"] is None


def test_ports_without_waiting_shows_the_last_pass(site: Site) -> None:
    site.call("POST", "/port", body())
    assert site.call("GET", "/ports") == (200, "OK", {"ports": {}})
    site.turn()
    assert [*site.call("GET", "/ports")[2]["ports"]] == [vmi(1)]


def test_ports_with_a_time_that_is_none_is_refused(site: Site) -> None:
    assert site.call("GET", "/ports?settled_s=soon") == failed("Invalid settled_s soon, allowed: seconds, at most 60")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "localhost.example", "::"])
def test_it_listens_on_loopback_only(site: Site, host: str) -> None:
    with pytest.raises(ConfigError, match=r"no authentication.*a loopback address"):
        PortServer(PortApi.__new__(PortApi), listen=(host, 0))


def test_an_address_in_use_is_an_operators_error(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = PortServer(object(), listen=taken.getsockname()[:2], file="agent.yaml")
        with pytest.raises(ConfigError, match=r"agent\.yaml: port_api\.listen: cannot listen"):
            server.start()
