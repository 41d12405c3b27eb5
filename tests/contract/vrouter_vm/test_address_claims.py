"""What real programs say when a guest takes over an address: keepalived, arping, and the kernel when it is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.fakes.guest_link import ROUTER_MAC, GuestLink, trunk_with_guests
from tests.fakes.guests import make_placement
from tests.fakes.vrouter_host import make_port
from tests.fakes.vrrp import keepalived
from vrouter_vm.claims import Claim, Standing
from vrouter_vm.guest_services.claim_box import ClaimBox
from vrouter_vm.guest_services.guest import Terms
from vrouter_vm.guest_services.service import Directory, TrunkService
from vrouter_vm.model import AddressPair, InterfaceSettings, MacAddress, VmiUuid

VIP, VIP6 = "10.1.1.100", "fd00:1::100"
PAIRS = tuple(AddressPair(prefix=ip_network(prefix)) for prefix in (f"{VIP}/32", f"{VIP6}/128"))


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not claim():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


@dataclass(kw_only=True)
class Site:
    """Two guests that share the addresses, and what is heard of them."""

    guests: list[GuestLink]
    box: ClaimBox
    service: TrunkService
    heard: list[Claim] = field(default_factory=list)

    def vmi(self, guest: GuestLink) -> VmiUuid:
        return make_port(guest.vlan).vmi_uuid

    def hears(self, guest: GuestLink, address: str, *, is_answer: bool = False) -> bool:
        """True when the last claim of an address is this one."""
        self.heard += self.box.take()
        claims = [claim for claim in self.heard if claim.address == ip_address(address)]
        return bool(claims) and (claims[-1].vmi_uuid, claims[-1].mac, claims[-1].is_answer) == (
            *(self.vmi(guest), guest.mac, is_answer),
        )

    def publish(self, standing: Standing) -> None:
        """Let the service know how claims stand."""
        self.box.publish(standing)
        self.service.wake()


@pytest.fixture
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with trunk_with_guests([101, 102]) as links:
        directory = Directory(lambda: Terms(mtu_bytes=1450, lease_s=3600))
        for link in links:
            number = link.vlan - 90
            port = replace(
                make_port(link.vlan, vlan=link.vlan, addresses=(f"10.1.1.{number}", f"fd00:1::{number}")),
                mac=MacAddress(link.mac),
            )
            settings = InterfaceSettings(vmi_uuid=port.vmi_uuid, address_pairs=PAIRS)
            placement = replace(make_placement(settings=settings), port=port, vlan=link.vlan, vif=f"eth1.{link.vlan}")
            directory.inbox.take({port.vmi_uuid: placement}, is_all=False)
            set_up(link, number)
        box = ClaimBox(lambda: None)
        service = TrunkService(
            "eth1",
            router_mac=MacAddress(ROUTER_MAC),
            directory=directory,
            claims=box,
            clock=time.monotonic,
            random=lambda: 0.5,
        )
        service.start()
        try:
            wait_until(lambda: len(directory.guests) == len(links))
            yield Site(guests=links, box=box, service=service)
        finally:
            service.stop()
        assert service.restarts == 0, service.describe()


def set_up(link: GuestLink, number: int) -> None:
    for address in (f"10.1.1.{number}/24", f"fd00:1::{number}/64"):
        assert link.run("ip", "address", "add", address, "dev", "eth0", *nodad(address)).returncode == 0


def nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []


def give(link: GuestLink, address: str) -> None:
    assert link.run("ip", "address", "add", address, "dev", "eth0", *nodad(address)).returncode == 0


@pytest.mark.parametrize("form", ["-U", "-A"])
def test_gratuitous_arp_is_a_claim_as_a_request_and_as_a_reply(site: Site, form: str) -> None:
    first, second = site.guests
    for guest in (first, second, first):
        give(guest, f"{VIP}/32")
        guest.run("arping", form, "-c", "1", "-w", "1", "-I", "eth0", VIP)
        wait_until(lambda guest=guest: site.hears(guest, VIP))  # type: ignore[misc]
        guest.run("ip", "address", "del", f"{VIP}/32", "dev", "eth0")


def test_a_guest_that_is_asked_answers_for_the_addresses_that_it_has_and_no_other(site: Site) -> None:
    has_it, _ = site.guests
    for address in (f"{VIP}/32", f"{VIP6}/128"):
        give(has_it, address)
    everybody = [site.vmi(guest) for guest in site.guests]
    site.publish(Standing(doubts=frozenset((vmi, ip_address(each)) for vmi in everybody for each in (VIP, VIP6))))
    for address in (VIP, VIP6):
        wait_until(lambda address=address: site.hears(has_it, address, is_answer=True))  # type: ignore[misc]
    assert {claim.vmi_uuid for claim in site.heard} == {site.vmi(has_it)}


def test_what_repeats_a_claim_that_stands_wakes_nobody(site: Site) -> None:
    owner, other = site.guests
    site.publish(Standing(won={(site.vmi(owner), ip_address(VIP)): MacAddress(owner.mac)}))
    for guest in (owner, other):
        give(guest, f"{VIP}/32")
        guest.run("arping", "-U", "-c", "1", "-w", "1", "-I", "eth0", VIP)
    wait_until(lambda: site.hears(other, VIP))
    assert [claim.vmi_uuid for claim in site.heard] == [site.vmi(other)]
    assert site.service.counts["address_claim"] == 2


def test_keepalived_claims_its_addresses_when_it_takes_over(site: Site, tmp_path: Path) -> None:
    """The two do not hear each other on this link, so both are masters: each says what a takeover says."""
    first, second = site.guests
    shared = f"{VIP}/32", f"{VIP6}/128"
    with keepalived(first.namespace, tmp_path, priority=150, own="10.1.1.11", peer="10.1.1.12", shared=shared):
        for address in (VIP, VIP6):
            wait_until(lambda address=address: site.hears(first, address))  # type: ignore[misc]
        with keepalived(second.namespace, tmp_path, priority=100, own="10.1.1.12", peer="10.1.1.11", shared=shared):
            for address in (VIP, VIP6):
                wait_until(lambda address=address: site.hears(second, address))  # type: ignore[misc]
