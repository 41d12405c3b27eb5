"""A verdict is wrong when what was seen is not what must be, and then the story's status is not 0."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from lab.guests import Lease, lease_lines
from lab.pings import Answer, Ping
from lab.site import simulator_site, two_hosts
from lab.story import Teller


@pytest.mark.parametrize(
    ("must_answer", "is_answered", "is_right"),
    [(True, True, True), (True, False, False), (False, False, True), (False, True, False)],
)
def test_a_ping_is_right_if_it_ended_as_it_must(must_answer: bool, is_answered: bool, is_right: bool) -> None:
    ping = Ping(source="a", target="10.0.0.1", label="", must_answer=must_answer)
    assert Answer(ping=ping, is_answered=is_answered).is_right is is_right


def test_one_wrong_verdict_makes_the_status_1_and_is_repeated_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller()
    teller.heading("a chapter")
    teller.judge("this is so", True)
    assert teller.end() == 0
    teller.judge("so is this", False, detail="it is not")
    assert teller.end() == 1
    assert capsys.readouterr().out.endswith("WRONG: so is this (it is not)\n")
    assert [verdict.chapter for verdict in teller.verdicts] == ["a chapter", "a chapter"]


def test_leases_replace_what_the_interface_had() -> None:
    lease = Lease(address=ip_interface("10.1.1.10/24"), gateway=ip_address("10.1.1.1"))
    lease6 = Lease(address=ip_interface("fd00:1::10/128"), gateway=ip_address("fe80::1"))
    assert list(lease_lines("eth0", (lease, lease6))) == [
        "addr flush dev eth0 scope global",
        "addr add 10.1.1.10/24 dev eth0",
        "route replace default via 10.1.1.1 dev eth0",
        "addr add fd00:1::10/128 dev eth0 nodad",
        "route replace default via fe80::1 dev eth0",
    ]
    assert len(list(lease_lines("eth0", (Lease(address=ip_interface("10.1.1.10/24")),)))) == 2


def test_no_two_machines_of_the_site_share_an_address() -> None:
    site = two_hosts()
    management = [*site.server_addresses, *(host.vrouter_address for host in site.hosts)]
    assert len(set(management)) == len(management)
    underlay = [host.underlay_address for host in site.hosts]
    assert len(set(underlay)) == len(underlay)


def test_the_simulators_site_has_a_vrouter_on_every_host_with_the_gateway_mac() -> None:
    site = two_hosts()
    hosts = simulator_site(site)["hosts"]
    assert isinstance(hosts, list)
    assert [host["vrouter"]["trunk_mac"] for host in hosts] == [site.gateway_mac] * 2
