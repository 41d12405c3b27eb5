"""Networks whose guests have addresses of their own: VMware Tools tell which, and TF learns them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.site import PROJECT, Site, wait_until
from tests.contract.scenarios.guests import NIC, A, B, Guests

NETWORK = "own-addresses"


@pytest.fixture(scope="module")
def own_network(running_site: Site) -> None:
    """A network with external_ipam, gateway 10.9.0.1 and service address 10.9.0.2, and its portgroup."""
    api = running_site.api
    ipam = ("default-domain", "default-project", "default-network-ipam")
    subnet = {
        "subnet": {"ip_prefix": "10.9.0.0", "ip_prefix_len": 24},
        "default_gateway": "10.9.0.1",
        "dns_server_address": "10.9.0.2",
    }
    reference = {"to": [*ipam], "uuid": api.fqname_to_uuid("network-ipam", ipam), "attr": {"ipam_subnets": [subnet]}}
    body = {"fq_name": [*PROJECT, NETWORK], "parent_type": "project", "external_ipam": True}
    api.create("virtual-network", body | {"network_ipam_refs": [reference]})
    wait_until(lambda: running_site.admin.find_portgroup(NETWORK), what="its portgroup")


@pytest.fixture
def owners(guests: Guests, own_network: None) -> Guests:
    return guests


def report(guests: Guests, name: str, *addresses: str) -> None:
    guests.site.simulator.report_from_guest(name, {NIC: addresses} if addresses else {})


def addresses_in_tf(guests: Guests, name: str) -> list[str]:
    vmi = guests.vmi_in_tf(name)
    if vmi is None:
        return []
    found = guests.site.api.list("instance-ip", back_ref_uuids=[vmi["uuid"]], detail=True)
    return sorted(str(each["instance_ip_address"]) for each in found)


def on_agent(guests: Guests, name: str, host: str = A) -> list[str]:
    port = guests.site.agents[host].ports().get(name)
    return [str(address) for address in port.addresses] if port is not None else []


def wait_address(guests: Guests, name: str, *wanted: str, host: str = A) -> None:
    """Wait until TF and the agent know exactly `wanted` as the guest's, and its port is open."""
    wait_until(
        lambda: addresses_in_tf(guests, name) == [*wanted] == on_agent(guests, name, host), what=f"{name} has {wanted}"
    )
    guests.wait_open(name)


def wait_held(guests: Guests, name: str, words: str) -> None:
    def is_held() -> bool:
        held = guests.site.managers[A].status().get("held", ())
        return any(each["subject"].startswith(name) and words in each["reason"] for each in held)

    wait_until(is_held, what=f"{name} held: {words}")


def test_a_guest_has_the_address_that_its_tools_report_and_another_one_once_they_report_another(
    owners: Guests,
) -> None:
    owners.create("web", A, NETWORK)
    report(owners, "web", "10.9.0.77")
    wait_address(owners, "web", "10.9.0.77")
    report(owners, "web", "10.9.0.78")
    wait_address(owners, "web", "10.9.0.78")


def test_an_address_that_comes_late_opens_the_port_and_until_then_the_guest_is_held(owners: Guests) -> None:
    owners.create("web", A, NETWORK)
    wait_held(owners, "web", "VMware Tools report")
    assert owners.nic("web")["blocked"]
    report(owners, "web", "fe80::250:56ff:fe80:1", "10.9.0.5")
    wait_address(owners, "web", "10.9.0.5")


@pytest.mark.parametrize(
    ("told", "words"),
    [("10.9.0.1", "the gateway"), ("10.9.0.2", "the service address"), ("192.0.2.7", "in no subnet")],
)
def test_an_address_that_no_guest_may_have_is_held_with_the_reason(owners: Guests, told: str, words: str) -> None:
    owners.create("web", A, NETWORK)
    report(owners, "web", told)
    wait_held(owners, "web", f"{told}, which is {words}")
    assert owners.nic("web")["blocked"]
    assert addresses_in_tf(owners, "web") == []


def test_another_guests_address_is_refused_also_on_another_host(owners: Guests) -> None:
    owners.create("owner", B, NETWORK)
    report(owners, "owner", "10.9.0.9")
    wait_address(owners, "owner", "10.9.0.9", host=B)
    owners.create("thief", A, NETWORK)
    report(owners, "thief", "10.9.0.9")

    def is_refused() -> bool:
        failed = owners.site.managers[A].status().get("failed", ())
        return any(each["subject"].startswith("thief") and "already in use" in each["reason"] for each in failed)

    wait_until(is_refused, what="refused in TF's words")
    assert owners.nic("thief")["blocked"]
    assert on_agent(owners, "owner", B) == ["10.9.0.9"]


@pytest.mark.parametrize(
    "told",
    [(), ("10.9.0.6", "10.9.0.5"), ("192.0.2.1", "10.9.0.5")],
    ids=["nothing", "two of the subnet", "one that is foreign"],
)
def test_an_address_that_is_forgotten_or_has_company_stays_and_the_vif_is_not_touched(
    owners: Guests, told: Sequence[str]
) -> None:
    owners.create("web", A, NETWORK)
    report(owners, "web", "10.9.0.5")
    wait_address(owners, "web", "10.9.0.5")
    owners.wait_in_sync()
    added_at = owners.site.agents[A].ports()["web"].added_at
    report(owners, "web", *told)
    owners.create("later")  # when it is served, the news about web was seen
    owners.wait_open("later")
    owners.wait_in_sync()
    assert addresses_in_tf(owners, "web") == on_agent(owners, "web") == ["10.9.0.5"]
    assert owners.site.agents[A].ports()["web"].added_at == added_at


def test_a_move_and_a_power_cycle_keep_the_address(owners: Guests) -> None:
    owners.create("web", A, NETWORK)
    report(owners, "web", "10.9.0.5")
    wait_address(owners, "web", "10.9.0.5")
    owners.site.admin.migrate("web", B)
    wait_address(owners, "web", "10.9.0.5", host=B)
    owners.site.admin.power_off("web")
    owners.wait_ports(B)
    assert addresses_in_tf(owners, "web") == ["10.9.0.5"]
    owners.site.admin.power_on("web")
    wait_address(owners, "web", "10.9.0.5", host=B)
