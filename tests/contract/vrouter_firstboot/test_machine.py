"""What first boot does to the machine, done to a real kernel: NICs in a namespace of their own."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.site import inside
from tf_reconcile.errors import Rejected
from vrouter_firstboot.machine import observe_nics, rename_nics
from vrouter_firstboot.nics import Nic, Role

NAMESPACE = f"tffb{os.getpid()}"


@pytest.fixture
def namespace() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("no right to make a network namespace")
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        with inside(NAMESPACE):
            yield
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def make_nics(*names: str) -> None:
    for number, name in enumerate(names):
        subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"far{number}"], check=True)


def nic(name: str) -> Nic:
    return Nic(name=name, mac="", label="", path="")


def index(name: str) -> int:
    return socket.if_nametoindex(name)


def test_each_nic_gets_the_name_of_its_role_also_where_they_change_places(namespace: None) -> None:
    make_nics("mgmt", "underlay", "ens256")
    was = {name: index(name) for name in ("mgmt", "underlay", "ens256")}
    roles = {Role.MANAGEMENT: nic("underlay"), Role.UNDERLAY: nic("mgmt"), Role.TRUNK: nic("ens256")}
    assert set(rename_nics(roles)) == {"mgmt", "underlay", "trunk"}
    assert (index("mgmt"), index("underlay"), index("trunk")) == (was["underlay"], was["mgmt"], was["ens256"])


def test_a_nic_without_a_role_gives_the_name_up(namespace: None) -> None:
    make_nics("mgmt", "ens256")
    first, second = index("mgmt"), index("ens256")
    rename_nics({Role.MANAGEMENT: nic("ens256")})
    assert index("mgmt") == second
    rename_nics({Role.MANAGEMENT: nic(socket.if_indextoname(first))})
    assert index("mgmt") == first
    assert socket.if_indextoname(second).startswith("tfnic")


def test_names_that_are_right_are_left_alone(namespace: None) -> None:
    make_nics("mgmt")
    subprocess.run(["ip", "link", "set", "mgmt", "up"], check=True)
    assert rename_nics({Role.MANAGEMENT: nic("mgmt")}) == ()
    assert b"state DOWN" not in subprocess.run(["ip", "link", "show", "mgmt"], capture_output=True, check=True).stdout


def test_a_nic_that_is_gone_is_named(namespace: None) -> None:
    with pytest.raises(Rejected, match="ens999"):
        rename_nics({Role.MANAGEMENT: nic("ens999")})


def test_only_what_has_hardware_behind_it_is_a_nic(tmp_path: Path) -> None:
    bus = tmp_path / "devices/pci0000:00/0000:00:05.0"
    (bus / "virtio1").mkdir(parents=True)
    (bus / "label").write_text("Ethernet1\n")
    for name in ("ens5", "trunk.101"):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "address").write_text("00:50:56:9a:00:01\n")
    (tmp_path / "net/ens5/device").symlink_to(bus / "virtio1")
    (found,) = observe_nics(tmp_path / "net")
    assert (found.name, found.mac, found.label) == ("ens5", "00:50:56:9a:00:01", "Ethernet1")
    assert found.path.endswith("/0000:00:05.0/virtio1")
