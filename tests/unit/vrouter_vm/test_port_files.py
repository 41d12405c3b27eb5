from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.fakes.vrouter_host import make_port
from vrouter_vm.model import Port, PortKind, VmiUuid
from vrouter_vm.port_files import InvalidPort, PortStore, format_port, parse_port

VMI = "00000000-0000-4000-8000-000000000001"
GOOD: Mapping[str, object] = {
    "id": VMI,
    "instance-id": "00000000-0000-4000-9000-000000000001",
    "vn-id": "00000000-0000-4000-b000-000000000005",
    "vm-project-id": "00000000-0000-4000-a000-000000000001",
    "display-name": "a  guest with 'quotes'",
    "system-name": VMI,
    "ip-address": "10.1.1.11",
    "ip6-address": "None",
    "mac-address": "00:50:56:AA:00:01",
    "type": 2,
    "rx-vlan-id": 101,
    "tx-vlan-id": 101,
}


def test_a_port_is_read_as_posted() -> None:
    port = parse_port(GOOD, now=7.0)
    assert port.vmi_uuid == VMI
    assert port.display_name == "a  guest with 'quotes'"
    assert port.addresses == (ip_address("10.1.1.11"),)
    assert port.mac == "00:50:56:aa:00:01"
    assert (port.rx_vlan, port.tx_vlan, port.kind, port.added_at) == (101, 101, PortKind.REMOTE, 7.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"id": 5}, "Invalid or missing data for <id>"),
        ({"instance-id": None}, "Invalid or missing data for <instance-id>"),
        ({"display-name": 1}, "Invalid or missing field for <display-name>"),
        ({"ip-address": None}, "Invalid or missing field for <ip-address>"),
        ({"type": "2"}, "Invalid or missing field for <type>"),
        ({"type": True}, "Invalid or missing field for <type>"),
        ({"mac-address": "00:50:56:aa:00"}, "Invalid MAC, Use xx:xx:xx:xx:xx:xx format"),
        ({"mac-address": "00:00:00:00:00:00"}, "Invalid MAC, Use xx:xx:xx:xx:xx:xx format"),
        ({"mac-address": "::::: "}, "Invalid MAC, Use xx:xx:xx:xx:xx:xx format"),
        ({"rx-vlan-id": "101"}, "Invalid or missing field for <rx-vlan-id>"),
        ({"tx-vlan-id": 2**31}, "Invalid or missing field for <tx-vlan-id>"),
        ({"tx-vlan-id": 0xFFFE}, "Invalid request. RX (isolated) vlan set, but TX vlan not set"),
        ({"rx-vlan-id": 0}, "Invalid VLAN 0 in <rx-vlan-id>, allowed: 1..4094, or -1 for none"),
        ({"tx-vlan-id": 4095}, "Invalid VLAN 4095 in <tx-vlan-id>, allowed: 1..4094, or -1 for none"),
        ({"type": 0, "vn-id": "nonsense"}, "Invalid VN uuid"),
    ],
)
def test_the_first_thing_that_is_wrong_is_told_in_the_words_of_tf(change: Mapping[str, object], text: str) -> None:
    with pytest.raises(InvalidPort) as refused:
        parse_port({**GOOD, **change}, now=0.0)
    assert str(refused.value) == text


@pytest.mark.parametrize("key", GOOD)
def test_every_key_is_needed(key: str) -> None:
    with pytest.raises(InvalidPort, match=f"<{key}>"):
        parse_port({name: value for name, value in GOOD.items() if name != key}, now=0.0)


@pytest.mark.parametrize(
    ("change", "is_enabled"),
    [
        ({}, False),
        ({"link-state": 1}, True),
        ({"link-state": 0}, False),
        ({"type": 1}, True),
        ({"link-state": "1"}, False),
    ],
)
def test_only_ports_of_type_2_start_disabled(change: Mapping[str, object], is_enabled: bool) -> None:
    assert parse_port({**GOOD, **change}, now=0.0).is_enabled is is_enabled


def test_an_unknown_type_acts_as_a_vm() -> None:
    assert parse_port({**GOOD, "type": 9}, now=0.0).kind is PortKind.VM


@pytest.mark.parametrize("vlan", [-1, 0xFFFF])
def test_no_vlan_can_be_written_in_two_ways(vlan: int) -> None:
    assert parse_port({**GOOD, "rx-vlan-id": vlan, "tx-vlan-id": vlan}, now=0.0).rx_vlan is None


@pytest.mark.parametrize(
    "port",
    [
        parse_port(GOOD, now=1764089000.25),
        parse_port({**GOOD, "ip6-address": "fd00::5", "link-state": 1}, now=1.0),
        parse_port({**GOOD, "rx-vlan-id": -1, "tx-vlan-id": -1, "vhostuser-mode": 1}, now=0.0),
        parse_port({**GOOD, "type": 0}, now=0.0),
    ],
)
def test_a_file_holds_all_of_a_port(port: Port) -> None:
    assert parse_port(json.loads(json.dumps(format_port(port))), now=99.0, is_new=False) == port


def test_a_file_has_the_keys_of_tf_in_the_order_of_tf() -> None:
    keys = "id instance-id display-name ip-address ip6-address vn-id vm-project-id mac-address system-name type"
    keys += " rx-vlan-id tx-vlan-id vhostuser-mode link-state author time"
    assert [*format_port(parse_port(GOOD, now=0.0))] == keys.split()


def test_a_file_of_tfs_agent_is_read(tmp_path: Path) -> None:
    """As written by vrouter-port-control and by contrail-vrouter-agent: their author and time, no link-state."""
    body = {**GOOD, "author": "/usr/bin/vrouter-port-control", "time": "2018-05-02 10:11:12.345678"}
    (tmp_path / VMI).write_text(json.dumps(body))
    store = make_store(tmp_path)
    store.load()
    assert [port.vmi_uuid for port in store.ports()] == [VMI]
    assert store.ports()[0].added_at == (tmp_path / VMI).stat().st_mtime


class Changes:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def make_store(directory: Path, changes: Changes | None = None) -> PortStore:
    return PortStore(directory, on_change=changes or Changes(), clock=lambda: 0.0)


def reload(directory: Path) -> tuple[Port, ...]:
    store = make_store(directory)
    store.load()
    return store.ports()


def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    store = make_store(tmp_path / "new" / "ports")
    store.load()
    store.add((make_port(1), make_port(2)))
    store.set_enabled(make_port(2).vmi_uuid, is_enabled=False)
    store.delete(make_port(1).vmi_uuid)
    again = reload(tmp_path / "new" / "ports")
    assert [(port.vmi_uuid, port.is_enabled) for port in again] == [(make_port(2).vmi_uuid, False)]
    assert again[0].added_at == make_port(2).added_at, "enabling does not make a port younger"


def test_bad_files_are_skipped_with_a_reason_and_foreign_names_without(tmp_path: Path) -> None:
    (tmp_path / VMI).write_text("{")
    other = VMI.replace("1", "2")
    (tmp_path / other).write_text(json.dumps(GOOD))
    (tmp_path / "notes.txt").write_text("{")
    (tmp_path / f".{VMI}.partial").write_text("{")
    (tmp_path / "vm").mkdir()
    store = make_store(tmp_path)
    store.load()
    assert store.ports() == ()
    assert {skipped.name: skipped.reason.partition(":")[0] for skipped in store.skipped} == {
        VMI: "Expecting property name enclosed in double quotes",
        other: f"it describes port {VMI}",
    }
    assert store.is_loaded


def test_a_repeated_port_is_not_changed_unless_its_vm_is_another(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.load()
    store.add((make_port(1),))
    store.add((make_port(1, vlan=999),))
    assert store.ports()[0].rx_vlan == 101
    moved = parse_port({**format_port(make_port(1, vlan=999)), "instance-id": VMI}, now=5.0)
    store.add((moved,))
    assert store.ports()[0].rx_vlan == 999
    assert reload(tmp_path)[0].rx_vlan == 999


def test_after_a_sync_what_was_not_posted_again_goes_but_for_namespaces(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.load()
    store.add((make_port(1), make_port(2), make_port(3, kind=PortKind.NAMESPACE)))
    version = store.begin_sync()
    store.add((make_port(1),))
    store.end_sync(version)
    assert {port.vmi_uuid for port in store.ports()} == {make_port(1).vmi_uuid, make_port(3).vmi_uuid}
    assert len(reload(tmp_path)) == 2


def test_an_older_sync_does_not_delete_what_a_newer_one_is_still_waiting_for(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.load()
    first = store.begin_sync()
    store.add((make_port(1),))
    store.begin_sync()
    store.end_sync(first)
    assert len(store.ports()) == 1


def test_switching_a_port_that_cannot_be_switched_says_why(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.load()
    store.add((make_port(1, kind=PortKind.NAMESPACE),))
    with pytest.raises(InvalidPort, match=f"Port Not found {VMI.replace('1', '9')}"):
        store.set_enabled(VmiUuid(VMI.replace("1", "9")), is_enabled=True)
    with pytest.raises(InvalidPort, match=f"Incorrect Port type for {VMI}"):
        store.set_enabled(make_port(1).vmi_uuid, is_enabled=True)


def test_every_change_wakes_the_loop(tmp_path: Path) -> None:
    changes = Changes()
    store = make_store(tmp_path, changes)
    store.load()
    store.add((make_port(1),))
    store.set_enabled(make_port(1).vmi_uuid, is_enabled=False)
    store.delete(make_port(1).vmi_uuid)
    store.end_sync(store.begin_sync())
    assert changes.count == 3


def test_a_port_that_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ports")
    store.load()
    (tmp_path / "ports").rmdir()
    with pytest.raises(OSError, match="No such file"):
        store.add((make_port(1),))
    assert store.ports() == ()


def test_a_file_that_cannot_be_replaced_stays_whole(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.load()
    store.add((make_port(1),))
    before = (tmp_path / make_port(1).vmi_uuid).read_bytes()
    (tmp_path / f".{make_port(1).vmi_uuid}.partial").mkdir()  # where the new text would be prepared
    with pytest.raises(OSError, match="Is a directory"):
        store.set_enabled(make_port(1).vmi_uuid, is_enabled=False)
    assert (tmp_path / make_port(1).vmi_uuid).read_bytes() == before
    assert store.ports()[0].is_enabled, "what is not on disk is not so"
