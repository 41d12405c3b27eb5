"""Which address of those that VMware Tools report becomes a guest's in TF, and how the plan follows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from pyVmomi import vim

from tests.fakes.manager_world import World, vm_uuid_of, vn_uuid_of
from vcenter_manager.actions import CreateInstanceIp, DeleteInstanceIp
from vcenter_manager.desired import vmi_uuid_of
from vcenter_manager.external_ipam import choose, why_refused
from vcenter_manager.inventory import parse_reported
from vcenter_manager.model import DeviceKey, Family, HostMoref, Network, Source, Subnet, VmiUuid
from vcenter_manager.plan import Decision

A = "host-a"
NIC = DeviceKey(4000)
SUBNETS = (
    Subnet(prefix=ip_network("10.1.0.0/24"), gateway=ip_address("10.1.0.1"), service=ip_address("10.1.0.2")),
    Subnet(prefix=ip_network("fd00:1::/64"), gateway=ip_address("fd00:1::1"), service=None),
)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.1.0.9", None),
        ("fd00:1::9", None),
        ("10.1.0.1", "10.1.0.1, which is the gateway"),
        ("10.1.0.2", "10.1.0.2, which is the service address"),
        ("10.1.0.0", "10.1.0.0, which no host can have"),
        ("10.1.0.255", "10.1.0.255, which no host can have"),
        ("fd00:1::", "fd00:1::, which is every router's (RFC 4291, 2.6.1)"),
        ("10.1.1.9", "10.1.1.9, which is in no subnet of the network"),
        ("169.254.3.4", "169.254.3.4, which is in no subnet of the network"),
        ("fe80::9", "fe80::9, which is in no subnet of the network"),
    ],
)
def test_an_address_is_refused_with_its_reason(address: str, reason: str | None) -> None:
    assert why_refused(ip_address(address), SUBNETS) == reason


class Guest:
    """One guest on a network with external_ipam, in a small world with one manager."""

    def __init__(self) -> None:
        self.world = World(hosts=(A,))
        blue = vn_uuid_of("blue")
        self.world.networks[blue] = replace(self.world.networks[blue], is_external_ipam=True, subnets=SUBNETS[:1])
        self.create("web")

    def create(self, name: str) -> None:
        self.world.create(name, A, "blue")

    def report(self, *addresses: str, name: str = "web") -> None:
        told = tuple(ip_address(each) for each in addresses)
        self.world.reported[vm_uuid_of(name)] = {NIC: told} if told else {}

    def vmi(self, name: str = "web") -> VmiUuid:
        return vmi_uuid_of(vm_uuid_of(name), NIC)

    def addresses(self, name: str = "web") -> list[str]:
        return [str(ip.address) for ip in self.world.interfaces[self.vmi(name)][1].instance_ips]

    def on_agent(self, name: str = "web") -> str | None:
        seen = self.world.agents[HostMoref(A)].ports.get(self.vmi(name))
        return str(seen.port.v4) if seen is not None else None

    def writes_of(self, decision: Decision) -> list[str]:
        return [type(action).__name__ for action in decision.plan.actions]

    def is_open(self, name: str = "web") -> bool:
        return self.world.port_of(name).blocked is False


def test_a_guest_without_a_reported_address_is_held_with_that_reason_and_stays_blocked() -> None:
    guest = Guest()
    guest.world.run_until_quiet()
    reasons = [held.reason for held in guest.world.decide(A).plan.held]
    assert reasons == ["no address yet: the network takes the one that VMware Tools report"]
    assert not guest.is_open()


def test_an_address_that_comes_late_opens_the_port() -> None:
    guest = Guest()
    guest.world.run_until_quiet()
    guest.report("fe80::5", "10.1.0.9")
    guest.world.run_until_quiet()
    assert guest.addresses() == [guest.on_agent()] == ["10.1.0.9"]
    guest.world.assert_alive()


@pytest.mark.parametrize("told", ["10.1.0.1", "10.1.0.2", "192.0.2.9"])
def test_a_guest_that_reports_an_address_it_may_not_have_is_held_and_stays_blocked(told: str) -> None:
    guest = Guest()
    guest.report(told)
    guest.world.run_until_quiet()
    reasons = {held.reason for held in guest.world.decide(A).plan.held}
    assert any(reason.startswith(f"VMware Tools report {told}, which is") for reason in reasons)
    assert guest.addresses() == []
    assert not guest.is_open()


def test_another_guests_address_is_refused_and_its_owner_keeps_it() -> None:
    guest = Guest()
    guest.report("10.1.0.9")
    guest.world.run_until_quiet()
    guest.create("thief")
    guest.report("10.1.0.9", name="thief")
    for _ in range(3):
        guest.world.pass_of(A)
    assert guest.addresses("thief") == []
    assert guest.world.port_of("thief").blocked is not False
    assert guest.on_agent() == "10.1.0.9"
    assert guest.is_open()


def test_a_new_address_is_there_before_the_last_one_goes() -> None:
    guest = Guest()
    guest.report("10.1.0.9")
    guest.world.run_until_quiet()
    guest.report("10.1.0.7")
    first, second = guest.world.pass_of(A), guest.world.pass_of(A)
    (create,) = first.plan.actions
    assert isinstance(create, CreateInstanceIp)
    assert str(create.address) == "10.1.0.7"
    assert any(isinstance(action, DeleteInstanceIp) for action in second.plan.actions)
    guest.world.run_until_quiet()
    assert guest.addresses() == [guest.on_agent()] == ["10.1.0.7"]


def test_a_new_address_that_is_taken_leaves_the_guest_its_last_one() -> None:
    guest = Guest()
    guest.create("owner")
    guest.report("10.1.0.9")
    guest.report("10.1.0.7", name="owner")
    guest.world.run_until_quiet()
    guest.report("10.1.0.7")
    for _ in range(3):
        guest.world.pass_of(A)
    assert guest.addresses() == [guest.on_agent()] == ["10.1.0.9"]


@pytest.mark.parametrize(
    "told",
    [(), ("10.1.0.7", "10.1.0.9"), ("10.1.0.9", "10.1.0.7"), ("192.0.2.1", "10.1.0.9")],
    ids=["nothing", "another first", "another last", "a foreign one first"],
)
def test_an_address_that_the_guest_still_has_or_tools_forget_stays(told: Sequence[str]) -> None:
    guest = Guest()
    guest.report("10.1.0.9")
    guest.world.run_until_quiet()
    guest.report(*told)
    assert guest.writes_of(guest.world.decide(A)) == []
    assert not guest.world.decide(A).plan.held


def test_a_guest_that_reports_only_what_it_may_not_have_keeps_its_address_and_is_held() -> None:
    guest = Guest()
    guest.report("10.1.0.9")
    guest.world.run_until_quiet()
    guest.report("10.1.0.1")
    decision = guest.world.decide(A)
    assert guest.writes_of(decision) == []
    assert [held.reason for held in decision.plan.held] == ["VMware Tools report 10.1.0.1, which is the gateway"]


def test_without_tf_nothing_is_asked_of_it() -> None:
    guest = Guest()
    guest.report("10.1.0.9")
    guest.world.run_until_quiet()
    guest.report("10.1.0.7")
    assert guest.writes_of(guest.world.decide(A, missing=(Source.NETWORKS,))) == []


def test_of_several_usable_addresses_the_first_is_taken_and_the_choice_is_the_same_again() -> None:
    network = Network(vn_uuid=vn_uuid_of("blue"), fq_name=("b",), families=frozenset({Family.V4}), subnets=SUBNETS)
    told = [ip_address("10.1.0.1"), ip_address("10.1.0.7"), ip_address("10.1.0.9")]
    assert choose(Family.V4, told, (), network).wanted == told[1]
    assert choose(Family.V6, told, (), network).wanted is None


def card(key: int, mac: str) -> object:
    return vim.vm.device.VirtualVmxnet3(key=key, macAddress=mac)


def nic_info(key: int, mac: str, *addresses: tuple[str, str, str]) -> object:
    config = vim.net.IpConfigInfo(
        ipAddress=[
            vim.net.IpConfigInfo.IpAddress(ipAddress=address, prefixLength=64, state=state, origin=origin)
            for address, state, origin in addresses
        ]
    )
    return vim.vm.GuestInfo.NicInfo(connected=True, deviceConfigId=key, macAddress=mac, ipConfig=config)


def test_reported_addresses_are_told_by_device_key_or_by_mac_and_the_lasting_ones_first() -> None:
    properties = {
        "config.hardware.device": [card(4000, "00:50:56:80:00:01"), card(4001, "00:50:56:80:00:02")],
        "guest.net": [
            nic_info(4000, "00:50:56:80:00:01", ("fd00::bad", "duplicate", "other"), ("10.1.0.9", "preferred", "")),
            nic_info(
                -1,
                "00:50:56:80:00:02",
                ("fd00::3", "deprecated", "other"),
                ("fd00::2", "preferred", "random"),
                ("fd00::1", "preferred", "linklayer"),
                ("nonsense", "preferred", "other"),
            ),
            nic_info(-1, "02:42:00:00:00:01", ("172.17.0.1", "preferred", "other")),  # a bridge inside the guest
            vim.vm.GuestInfo.NicInfo(connected=False, deviceConfigId=4000, macAddress="00:50:56:80:00:01"),
        ],
    }
    assert {key: [str(each) for each in told] for key, told in parse_reported(properties).items()} == {
        4000: ["10.1.0.9"],
        4001: ["fd00::1", "fd00::2", "fd00::3"],
    }


def test_a_vm_whose_tools_say_nothing_reports_nothing() -> None:
    assert parse_reported({"config.hardware.device": [card(4000, "00:50:56:80:00:01")], "guest.net": None}) == {}
