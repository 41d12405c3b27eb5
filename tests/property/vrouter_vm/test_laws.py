"""Laws of the plan: it converges from anywhere, in a safe order, and touches nothing that is right or foreign."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.vrouter_host import TRUNK_MAC, FakeHost, make_interfaces, make_network, make_port, make_view
from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient
from vrouter_vm import names
from vrouter_vm.actions import AnyAction
from vrouter_vm.desired import desired_state
from vrouter_vm.kernel_model import Route, Vif, Vrf
from vrouter_vm.model import NetworkView, Port, VmiUuid, VnUuid
from vrouter_vm.plan import plan_host
from vrouter_vm.wanted.links import route_to

RED = make_network("red", 5, "10.1.1.0/24", "fd00:1::/64")
BLUE = make_network("blue", 6, "10.1.1.0/24")
GREEN = make_network("green", 7, "10.2.0.0/16")
GREEN_AS_RED = make_network("green", 5, "10.2.0.0/16")  # red is gone from TF and green has its network id


@st.composite
def a_port(draw: st.DrawFn, number: int) -> Port:
    vn = draw(st.sampled_from(["red", "blue", "green", "unknown"]))
    host = draw(st.integers(10, 14))
    address = f"10.2.0.{host}" if vn == "green" else f"10.1.1.{host}"
    ipv6 = (f"fd00:1::{host}",) if vn == "red" and draw(st.booleans()) else ()
    return make_port(
        number,
        vlan=draw(st.integers(101, 105)),
        vn=vn,
        addresses=(address, *ipv6),
        is_enabled=draw(st.booleans()),
        mac=f"00:50:56:aa:00:{draw(st.integers(1, 6)):02x}",
    )


@st.composite
def port_sets(draw: st.DrawFn) -> list[Port]:
    return [draw(a_port(number)) for number in draw(st.sets(st.integers(1, 6), max_size=6))]


views = st.sampled_from(
    [
        make_view(RED, BLUE, GREEN),
        make_view(RED),
        make_view(BLUE, GREEN_AS_RED),
        make_view(RED, BLUE, make_network("green", 7, "10.2.0.0/16", "10.1.0.0/16")),
    ]
)


@st.composite
def littered_hosts(draw: st.DrawFn) -> FakeHost:
    """A host that somebody or an older version of ours left in any state, among it things with right names."""
    host = FakeHost(has_ipv6=draw(st.booleans()), has_resilient_groups=draw(st.booleans()))
    if host.has_resilient_groups:
        host.idle_next_hops = draw(st.sets(st.sampled_from(names.NEXT_HOP_IDS[:3])))
    if not host.has_ipv6:
        host.rules = {rule for rule in host.rules if rule.version == 4}
    for network_id in draw(st.sets(st.integers(4, 7))):
        table = names.table_of(network_id) if draw(st.booleans()) else 10 + network_id
        host.vrfs[f"v{network_id}"] = Vrf(name=f"v{network_id}", table=table)
    for vlan in draw(st.sets(st.integers(100, 105))):
        name = f"eth1.{vlan}"
        vrf = draw(st.sampled_from([None, *host.vrfs]))
        mac = draw(st.sampled_from([TRUNK_MAC, "02:00:00:00:00:01"]))
        host.vifs[name] = Vif(name=name, vlan=draw(st.sampled_from([vlan, 9])), vrf=vrf, mac=mac)  # type: ignore[arg-type]
    for name in draw(st.sets(st.sampled_from([*host.vrfs, *host.vifs, "none"]))) - {"none"}:
        if name in host.vrfs:
            table = host.vrfs[name].table
            host.routes |= {
                Route(table=table, prefix=ip_network(prefix), ifname=None, metric=names.UNREACHABLE_METRIC)
                for prefix in (("0.0.0.0/0", "::/0") if host.has_ipv6 else ("0.0.0.0/0",))
            }
    for table in draw(st.sets(st.integers(names.table_of(4), names.table_of(7)))):
        host.routes.add(Route(table=table, prefix=ip_network("10.9.0.0/16"), ifname=None))
    return host


def plan_of(host: FakeHost, ports: list[Port], view: NetworkView) -> tuple[AnyAction, ...]:
    have = host.see()
    want = desired_state(
        ports=ports, networks=view, interfaces=make_interfaces(ports), trunk=have.trunk, has_ipv6=have.has_ipv6
    )
    return plan_host(want=want, have=have).actions


def run_pass(host: FakeHost, ports: list[Port], view: NetworkView, *, most: int | None = None) -> None:
    for action in plan_of(host, ports, view)[:most]:
        host.apply(action)


@given(host=littered_hosts(), ports=port_sets(), view=views)
def test_one_pass_converges_from_any_state_through_safe_moments_only(
    host: FakeHost, ports: list[Port], view: NetworkView
) -> None:
    run_pass(host, ports, view)
    assert plan_of(host, ports, view) == ()


@settings(max_examples=60)
@given(first=port_sets(), second=port_sets(), view=views, cut=st.integers(0, 80))
def test_a_crash_after_any_action_converges(first: list[Port], second: list[Port], view: NetworkView, cut: int) -> None:
    host = FakeHost()
    run_pass(host, first, view)
    run_pass(host, second, view, most=cut)
    run_pass(host, second, view)
    assert plan_of(host, second, view) == ()


@settings(max_examples=60)
@given(first=port_sets(), second=port_sets())
def test_there_and_back_again_is_the_same_host(first: list[Port], second: list[Port]) -> None:
    host, view = FakeHost(), make_view(RED, BLUE, GREEN, make_network("unknown", 8))
    run_pass(host, first, view)
    before = host.see()
    run_pass(host, second, view)
    run_pass(host, first, view)
    # The host's own forwarding is not taken back: something else may rely on it by now.
    assert replace(host.see(), sysctls={}) == replace(before, sysctls={})


@settings(max_examples=60)
@given(
    first=port_sets(),
    second=port_sets(),
    view=views,
    fail_at=st.integers(0, 60),
    failure=st.sampled_from([Transient, Conflict, Rejected]),
)
def test_any_one_failed_action_leaves_no_unsafe_moment_and_the_next_pass_converges(
    first: list[Port],
    second: list[Port],
    view: NetworkView,
    fail_at: int,
    failure: type[Transient] | type[Conflict] | type[Rejected],
) -> None:
    host = FakeHost()
    run_pass(host, first, view)
    host.fail_at, host.failure = len(host.applied) + fail_at, failure
    failed: set[str] = set()
    for action in plan_of(host, second, view):
        if failed & {action.subject, *action.needs}:
            failed.add(action.subject)
            continue
        try:
            host.apply(action)
        except BoundaryError:
            failed.add(action.subject)
    host.fail_at = None
    run_pass(host, second, view)
    assert plan_of(host, second, view) == ()


@given(ports=port_sets(), view=views)
def test_two_networks_never_share_a_vrf_and_two_ports_never_a_vif(ports: list[Port], view: NetworkView) -> None:
    trunk = FakeHost().trunk
    want = desired_state(ports=ports, networks=view, interfaces=make_interfaces(ports), trunk=trunk, has_ipv6=True)
    networks_of_vrf: dict[str, set[VnUuid]] = {}
    for placement in want.placements.values():
        networks_of_vrf.setdefault(placement.vrf, set()).add(placement.network.vn_uuid)
    assert all(len(networks) == 1 for networks in networks_of_vrf.values())
    vifs = [placement.vif for placement in want.placements.values()]
    assert len(vifs) == len(set(vifs))
    assert want.placements.keys() | want.held.keys() == {port.vmi_uuid for port in ports}
    assert not want.placements.keys() & want.held.keys()


@given(ports=port_sets(), late=a_port(9), view=views)
def test_a_port_that_comes_later_takes_nothing_from_those_before(
    ports: list[Port], late: Port, view: NetworkView
) -> None:
    trunk = FakeHost().trunk
    before = desired_state(ports=ports, networks=view, interfaces=make_interfaces(ports), trunk=trunk, has_ipv6=True)
    later = [*ports, late]
    after = desired_state(ports=later, networks=view, interfaces=make_interfaces(later), trunk=trunk, has_ipv6=True)
    assert {vmi: after.placements[vmi] for vmi in before.placements} == before.placements


@given(ports=port_sets())
def test_what_the_kernel_holds_for_ports_of_unknown_networks_stays(ports: list[Port]) -> None:
    host = FakeHost()
    run_pass(host, ports, make_view(RED, BLUE, GREEN))
    before, count = host.see(), len(host.applied)
    nothing_known = make_view(missing=dict.fromkeys(("red", "blue", "green"), "TF does not answer"))
    run_pass(host, ports, nothing_known)
    assert host.see() == before
    assert len(host.applied) == count


@given(trunk=st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True), vlan=st.integers(1, 4094))
def test_vif_names_fit_and_parse_back(trunk: str, vlan: int) -> None:
    name = names.format_vif(trunk, vlan)
    assert len(name) <= names.INTERFACE_NAME_CHARS
    assert names.parse_vif(trunk, name) == vlan
    assert names.parse_vif(f"{trunk}x", name) is None


@given(network_id=st.integers(1, 65535))
def test_vrf_names_fit_and_parse_back(network_id: int) -> None:
    name = names.format_vrf(network_id)
    assert len(name) <= names.INTERFACE_NAME_CHARS
    assert names.parse_vrf(name) == network_id
    assert names.is_table_of_ours(names.table_of(network_id))


@given(text=st.text(max_size=16))
def test_a_name_that_parses_is_the_name_that_is_built(text: str) -> None:
    network_id, vlan = names.parse_vrf(text), names.parse_vif("eth1", text)
    assert network_id is None or names.format_vrf(network_id) == text
    assert vlan is None or names.format_vif("eth1", vlan) == text


def test_foreign_objects_are_never_part_of_a_plan() -> None:
    host = FakeHost()
    host.foreign_names |= {"v5", "eth1.102"}
    ports = [make_port(1), make_port(2, vn="blue"), make_port(3, vn="blue")]
    run_pass(host, ports, make_view(RED, BLUE))
    assert set(host.vifs) == {"eth1.103"}
    assert set(host.vrfs) == {"v6"}


def test_an_address_that_moves_to_another_vif_has_one_route_at_the_end() -> None:
    host = FakeHost()
    view = make_view(RED)
    run_pass(host, [make_port(1, addresses=("10.1.1.20",))], view)
    run_pass(host, [make_port(2, addresses=("10.1.1.20",))], view)
    gateway = ip_address("10.1.1.1")
    wanted = route_to(table=names.table_of(5), prefix=ip_network("10.1.1.20/32"), ifname="eth1.102", source=gateway)
    assert [route for route in host.routes if route.ifname is not None] == [wanted]
    assert VmiUuid("x") not in host.vifs


def test_a_vif_of_an_unknown_network_goes_when_its_vrf_is_another_networks_now() -> None:
    host = FakeHost()
    run_pass(host, [make_port(1)], make_view(RED))
    heir = make_network("green", 5, "10.2.0.0/16")
    ports = [make_port(1), make_port(2, vn="green", addresses=("10.2.0.11",))]
    run_pass(host, ports, make_view(heir, missing={"red": "TF has given its network id 5 to green"}))
    assert set(host.vifs) == {"eth1.102"}
    assert {route.prefix for route in host.routes if route.ifname} == {ip_network("10.2.0.11/32")}


def test_a_vif_is_kept_for_an_unknown_network_only_when_it_is_this_guests() -> None:
    host = FakeHost()
    run_pass(host, [make_port(1)], make_view(RED))
    another = make_port(2, vlan=101)
    run_pass(host, [another], make_view(missing={"red": "TF does not answer"}))
    assert host.vifs == {}
