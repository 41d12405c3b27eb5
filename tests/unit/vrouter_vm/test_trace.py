from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from tests.fakes.vrouter_host import make_network, make_port
from vrouter_vm.filters import policy
from vrouter_vm.filters.verdict import Decision
from vrouter_vm.kernel_model import Element
from vrouter_vm.model import Direction, InterfaceSettings, IpAddress, Placement, PortState
from vrouter_vm.status import PortStatus
from vrouter_vm.trace import Lookup, Packet, Trace, parse_packet, trace


@dataclass(kw_only=True)
class FakeView:
    """A kernel with two vifs and a tunnel in v5."""

    elements: set[tuple[str, Element]] = field(default_factory=set)
    vrfs: dict[str, str] = field(default_factory=lambda: {"eth1.101": "v5", "eth1.102": "v5", "x5": "v5"})
    routes: dict[str, Lookup] = field(default_factory=dict)
    landings: dict[str, Lookup] = field(default_factory=dict)

    def has_element(self, set_name: str, element: Element) -> bool:
        return (set_name, element) in self.elements

    def vrf_of(self, ifname: str) -> str | None:
        return self.vrfs.get(ifname)

    def route(self, vrf: str, destination: IpAddress, *, is_tunnelled: bool) -> Lookup:
        assert vrf == "v5"
        routes = self.routes | self.landings if is_tunnelled else self.routes
        return routes.get(str(destination), Lookup(ifname=None))


def served(number: int) -> PortStatus:
    port = make_port(number)
    placement = Placement(
        port=port,
        network=make_network("red", 5),
        settings=InterfaceSettings(vmi_uuid=port.vmi_uuid),
        vlan=100 + number,
        vif=f"eth1.{100 + number}",
        vrf="v5",
        is_active=True,
    )
    return PortStatus(port=port, state=PortState.ACTIVE, reason="", placement=placement)


FIRST, SECOND = served(1), served(2)
BOUND = (policy.BIND4, ("eth1.101", str(FIRST.port.mac), "10.1.1.11"))
KNOWN_VTEP = (policy.VTEPS, ("eth0", "192.0.2.2"))
QUERY = {"source": "10.1.1.11", "destination": "10.1.1.12", "protocol": "tcp", "port": "443"}


def traced(view: FakeView, *, ports: tuple[PortStatus, ...] = (FIRST, SECOND), **query: str) -> Trace:
    return trace({"vif": "eth1.101", **QUERY, **query}, ports=ports, underlay="eth0", view=view)


def from_tunnel(view: FakeView, *, underlay: str | None = "eth0", **query: str) -> Trace:
    return trace({"vni": "5", "vtep": "192.0.2.2", **QUERY, **query}, ports=(SECOND,), underlay=underlay, view=view)


def ways(found: Trace) -> list[tuple[str, bool | None]]:
    return [(step.at, step.passes) for step in found.steps]


def test_policies_are_asked_of_what_is_routed_on_and_the_rule_that_drops_it_is_named() -> None:
    view = FakeView(elements={BOUND}, routes={"10.1.1.12": Lookup(ifname="eth1.102")})
    said = Decision(passes=False, direction=Direction.ARRIVING, layer="security groups", rule=None)
    query = {"vif": "eth1.101", **QUERY}
    found = trace(query, ports=(FIRST, SECOND), underlay="eth0", view=view, policies=lambda _vrf, _packet: [said])
    assert ways(found) == [("binding", True), ("route", True), ("policy", False)]
    assert found.steps[-1].detail == "dropped arriving by security groups, no rule matches"
    assert found.next is None


def test_a_guest_without_port_security_may_send_from_any_address() -> None:
    view = FakeView(elements={(policy.UNSECURED, ("eth1.101",))}, routes={"10.1.1.12": Lookup(ifname="eth1.102")})
    assert ways(traced(view, source="192.0.2.9"))[0] == ("binding", True)


def test_to_a_guest_here_it_goes_on_by_its_vif() -> None:
    found = traced(FakeView(elements={BOUND}, routes={"10.1.1.12": Lookup(ifname="eth1.102")}))
    assert ways(found) == [("binding", True), ("route", True)]
    assert found.next == {"vif": "eth1.102", "vmi": SECOND.port.vmi_uuid, "guest": "guest-2"}


@pytest.mark.parametrize(
    ("source", "destination", "via"),
    [("10.1.1.11", "10.1.1.13", "192.0.2.9"), ("fd00::11", "fd00::13", "::ffff:192.0.2.9")],
)
def test_to_a_guest_elsewhere_it_goes_on_by_its_vtep(source: str, destination: str, via: str) -> None:
    bound = policy.BIND4 if "." in source else policy.BIND6
    view = FakeView(
        elements={(bound, ("eth1.101", str(FIRST.port.mac), source))},
        routes={destination: Lookup(ifname="x7", via=ip_address(via))},
    )
    found = traced(view, source=source, destination=destination)
    assert found.next == {"vtep": "192.0.2.9", "vni": 7}


def test_an_address_that_guests_use_at_once_is_told_with_all_its_ways_and_lands_at_a_guest_here() -> None:
    here = Lookup(ifname="eth1.102", via=ip_address("10.1.1.12"))
    there = Lookup(ifname="x5", via=ip_address("192.0.2.9"))
    view = FakeView(
        elements={BOUND, KNOWN_VTEP},
        routes={"10.1.1.100": replace(here, others=(there,))},
        landings={"10.1.1.100": here},
    )
    found = traced(view, destination="10.1.1.100")
    assert ways(found)[-1] == ("route", None)
    assert found.next is None
    told = "10.1.1.100 in VRF v5: flow by flow, by one of vif eth1.102 (guest-2), VTEP 192.0.2.9 with VNI 5"
    assert found.steps[-1].detail == told
    said = Decision(passes=True, direction=Direction.ARRIVING, layer="security groups", rule="all")
    query = {"vif": "eth1.101", **QUERY, "destination": "10.1.1.100"}
    judged = trace(query, ports=(FIRST, SECOND), underlay="eth0", view=view, policies=lambda _vrf, _packet: [said])
    assert ways(judged) == [("binding", True), ("policy", True), ("route", None)], "it goes on where nobody sees it"
    landed = from_tunnel(view, source="10.1.1.13", destination="10.1.1.100")
    assert landed.next == {"vif": "eth1.102", "vmi": SECOND.port.vmi_uuid, "guest": "guest-2"}


def test_a_vtep_that_a_route_may_not_name_itself_is_found_among_those_that_are_known() -> None:
    view = FakeView(
        elements={
            (policy.BIND4, ("eth1.101", str(FIRST.port.mac), "10.1.1.11")),
            (policy.VTEPS, ("eth0", "10.1.1.1")),
        },
        routes={"10.1.1.13": Lookup(ifname="x7", via=ip_address("250.1.1.1"))},
    )
    found = traced(view, source="10.1.1.11", destination="10.1.1.13")
    assert found.next == {"vtep": "10.1.1.1", "vni": 7}


def test_a_source_that_is_not_bound_to_the_vif_ends_there() -> None:
    found = traced(FakeView(elements={BOUND}), source="10.1.1.99", destination="10.1.1.12")
    assert ways(found) == [("binding", False)]
    assert "10.1.1.99 with MAC" in found.steps[0].detail


def test_a_vif_that_the_kernel_has_in_no_vrf_and_a_port_that_is_held_end_it() -> None:
    lost = FakeView(elements={BOUND}, vrfs={})
    assert traced(lost).steps[-1].detail == "eth1.101 is not in VRF v5"
    held = replace(FIRST, state=PortState.HELD, reason="VLAN 101 is taken")
    assert traced(FakeView(), ports=(held,)).steps[-1].detail == "its port is held: VLAN 101 is taken"
    assert traced(FakeView(), ports=()).steps[-1].detail == "no port of this host has the vif eth1.101"


def test_without_a_route_it_ends() -> None:
    found = traced(FakeView(elements={BOUND}))
    assert ways(found) == [("binding", True), ("route", False)]
    assert found.next is None


def test_a_route_through_something_that_is_not_ours_leads_out_of_sight() -> None:
    elsewhere = Lookup(ifname="eth0", via=ip_address("192.0.2.254"))
    found = traced(FakeView(elements={BOUND}, routes={"10.1.1.12": elsewhere}))
    assert ways(found)[-1] == ("route", None)
    assert "leaves through eth0 by 192.0.2.254" in found.steps[-1].detail


@pytest.mark.parametrize(
    ("protocol", "port", "passes"), [("icmp", None, True), ("udp", "53", True), ("tcp", "22", False)]
)
def test_the_router_itself_takes_pings_and_what_guests_may_ask_it(
    protocol: str, port: str | None, passes: bool
) -> None:
    names_service = (policy.SERVICES4, ("v5", "10.1.1.1", "53"))
    view = FakeView(elements={BOUND, names_service}, routes={"10.1.1.1": Lookup(ifname="lo", is_local=True)})
    query = {"vif": "eth1.101", "source": "10.1.1.11", "destination": "10.1.1.1", "protocol": protocol}
    query |= {} if port is None else {"port": port}
    found = trace(query, ports=(FIRST,), underlay=None, view=view)
    assert ways(found)[-1] == ("gateway", passes)


def test_out_of_a_tunnel_it_goes_to_the_guests_vif() -> None:
    view = FakeView(elements={KNOWN_VTEP}, routes={"10.1.1.12": Lookup(ifname="eth1.102")})
    found = from_tunnel(view)
    assert ways(found) == [("tunnel", True), ("route", True)]
    assert found.next is not None
    assert found.next["vif"] == "eth1.102"


def test_a_tunnel_from_nobody_known_or_for_no_network_here_ends() -> None:
    assert "no VTEP 192.0.2.2" in from_tunnel(FakeView()).steps[-1].detail
    assert from_tunnel(FakeView(elements={KNOWN_VTEP}), vni="8").steps[-1].detail == (
        "no network with VNI 8 has a guest here"
    )
    assert from_tunnel(FakeView(), underlay=None).steps[-1].detail == "this host has no overlay"


def test_icmp_is_icmpv6_between_ipv6_addresses() -> None:
    assert parse_packet({"vif": "x", "source": "fd00::1", "destination": "fd00::2"}) == Packet(
        source=ip_address("fd00::1"), destination=ip_address("fd00::2"), protocol=58, port=None
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": "web"}, "source: 'web'; allowed: an IPv4 or IPv6 address"),
        ({"source": "fd00::1"}, "of two IP versions"),
        ({"protocol": "http"}, "protocol: 'http'; allowed: icmp, tcp, udp, sctp or 0 to 255"),
        ({"port": "65536"}, "port: '65536'; allowed: 0 to 65535"),
        ({"colour": "red"}, "unknown argument colour"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_packet({"vif": "eth1.101", **QUERY, **changes})


def test_where_it_comes_in_has_to_be_told() -> None:
    with pytest.raises(ValueError, match="Needed: vif, or vni and vtep"):
        parse_packet({**QUERY, "vni": "5"})
    with pytest.raises(ValueError, match="vni: '0'; allowed: 1 to 16777215"):
        from_tunnel(FakeView(), vni="0")
