from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import pytest

from tests.fakes.vrouter_host import FakeFilters, FakeHost, make_interfaces, make_network, make_port, make_view
from tf_reconcile.errors import Rejected
from vrouter_vm.actions import ChangeElements, ReplaceFilters, SetUp
from vrouter_vm.desired import all_wanted, desired_state, judge_of
from vrouter_vm.filters import policy
from vrouter_vm.filters.flows import EVERYTHING, Flow, FlowJudge, Scope, scope_of
from vrouter_vm.filters.rules import Packet, PolicyRule, PolicyView, Service
from vrouter_vm.kernel_model import ChainRule, Desired, Elements
from vrouter_vm.model import (
    AddressPair,
    GuestPolicy,
    InterfaceSettings,
    IpAddress,
    ListKey,
    PolicyLayer,
    Port,
    SetKey,
    StaticRoute,
    VnUuid,
)
from vrouter_vm.plan import plan_host
from vrouter_vm.reconciler import Applied, Reconciler
from vrouter_vm.wanted.state import Wanted

FIRST, SECOND = make_port(1), make_port(2)
LISTED, WEB = ListKey("group:web:arriving"), SetKey("set:group:web")
LAYER = PolicyLayer(name="security groups", lists=(LISTED,), passes=False)
RULE = PolicyRule(name="web rule 1", passes=True, src=((WEB,),), services=(Service(protocol=6, dst_ports=(80, 80)),))


def wanted(*rules: PolicyRule) -> Wanted:
    """Two guests of one network, the second in a group with these rules."""
    limited = InterfaceSettings(vmi_uuid=SECOND.vmi_uuid, policy=GuestPolicy(arriving=(LAYER,)))
    return all_wanted(
        ports=[FIRST, SECOND],
        networks=make_view(make_network("red", 5)),
        interfaces=make_interfaces([FIRST, SECOND], limited),
        policies=PolicyView(lists={LISTED: rules}, members={WEB: frozenset({(VnUuid("red"), "10.1.1.11")})}),
        trunk=FakeHost().trunk,
        has_ipv6=True,
    )


def judge(*rules: PolicyRule) -> FlowJudge:
    return judge_of(wanted(*rules))


def flow(*, dst_port: int = 80, is_revoked: bool = False, src: str = "10.1.1.11") -> Flow:
    packet = Packet(
        zone=5, src=ip_address(src), dst=ip_address("10.1.1.12"), protocol=6, src_port=1000, dst_port=dst_port
    )
    return Flow(packet=packet, is_revoked=is_revoked, handle=f"{src} {dst_port}".encode())


def change(want: Elements, have: Elements, **also: object) -> ChangeElements:
    return ChangeElements(subject="filters", want=want, have=have, **also)  # type: ignore[arg-type]


def test_wrong_are_the_flows_that_pass_and_should_not_and_those_that_are_revoked_and_should_pass() -> None:
    right = [flow(), flow(dst_port=81, is_revoked=True)]
    wrong = [flow(dst_port=81), flow(is_revoked=True), flow(src="10.1.1.99")]
    assert judge(RULE).wrong([*right, *wrong]) == wrong


def test_a_decision_names_the_rule_or_that_none_matches() -> None:
    assert str(judge(RULE).decide(flow().packet)) == "passed arriving by security groups, web rule 1"
    assert str(judge(RULE).decide(flow(dst_port=81).packet)) == "dropped arriving by security groups, no rule matches"
    back = replace(flow().packet, src=ip_address("10.1.1.12"), dst=ip_address("10.1.1.11"))
    assert str(judge(RULE).decide(back)) == "passed: no policy applies"


def test_what_lies_behind_several_guests_is_judged_as_that_of_the_guest_to_which_it_is_routed() -> None:
    """The first that came and is there: the policies of the two may differ."""
    pair = (AddressPair(prefix=ip_network("10.1.1.99/32")),)
    first, second, absent = make_port(5), make_port(6), make_port(4, is_enabled=False)
    settings = [InterfaceSettings(vmi_uuid=port.vmi_uuid, address_pairs=pair) for port in (first, second, absent)]
    judging = judge_of(
        all_wanted(
            ports=[first, second, absent],
            networks=make_view(make_network("red", 5)),
            interfaces=make_interfaces([first, second, absent], *settings),
            trunk=FakeHost().trunk,
            has_ipv6=True,
        )
    )
    assert [found.port for found in judging.guests(5, ip_address("10.1.1.99"))] == [first]


def test_what_a_networks_route_table_puts_behind_a_guest_is_judged_as_the_guests() -> None:
    network = replace(
        make_network("red", 5),
        static_routes=(StaticRoute(prefix=ip_network("10.9.0.0/16"), next_hop=FIRST.addresses[0]),),
    )
    judging = judge_of(
        all_wanted(
            ports=[FIRST],
            networks=make_view(network),
            interfaces=make_interfaces([FIRST]),
            trunk=FakeHost().trunk,
            has_ipv6=True,
        )
    )
    assert [found.port for found in judging.guests(5, ip_address("10.9.1.1"))] == [FIRST]


VIF = "eth1.101"
CHAIN = {"list-group-web-arriving": (ChainRule("accept", "x"),)}


@pytest.mark.parametrize(
    ("action", "scope"),
    [
        (SetUp(subject="eth1.101", ifname="eth1.101"), Scope()),
        (ReplaceFilters(subject="filters", elements={}), EVERYTHING),
        (change({}, {}, chains=CHAIN, altered_chains=frozenset(CHAIN)), EVERYTHING),
        (change({}, {}, chains=CHAIN), Scope()),
        (change({policy.LEAVING: frozenset({(VIF, "17")})}, {policy.LEAVING: frozenset({(VIF, "16")})}), EVERYTHING),
        (change({policy.LEAVING: frozenset({(VIF, "17")})}, {}), Scope()),
        (change({policy.ZONES: frozenset({(VIF, "5")})}, {policy.ZONES: frozenset({(VIF, "6")})}), EVERYTHING),
        (
            change({"set-group-web-a4": frozenset({("5", "10.1.1.7")})}, {"set-group-web-a4": frozenset()}),
            Scope(members=frozenset({("5", "10.1.1.7")})),
        ),
        (
            change(
                {
                    policy.ZONES: frozenset({(VIF, "5")}),
                    policy.BIND4: frozenset({(VIF, "00:50:56:aa:00:07", "10.1.1.7")}),
                },
                {},
            ),
            Scope(members=frozenset({("5", "10.1.1.7")})),
        ),
    ],
    ids=["link", "all anew", "list", "new list", "other policy", "new vif", "other zone", "member", "new address"],
)
def test_a_change_concerns_no_more_flows_than_it_may_decide_otherwise(action: object, scope: Scope) -> None:
    assert scope_of(action) == scope  # type: ignore[arg-type]


def test_a_scope_of_addresses_and_prefixes_takes_the_flows_from_and_to_them() -> None:
    flows = [flow(), flow(src="10.1.1.99"), flow(src="10.9.0.1")]
    assert Scope(members=frozenset({("5", "10.1.1.11"), ("5", "10.9.0.0/16")})).of(flows) == [flows[0], flows[2]]
    assert Scope(members=frozenset({("6", "10.1.1.11")})).of(flows) == []
    assert EVERYTHING.of(flows) == flows


def test_few_addresses_are_asked_for_one_by_one_and_prefixes_and_many_all_at_once() -> None:
    few = Scope(members=frozenset({("5", "10.1.1.7"), ("6", "fd00::7")}))
    assert few.addresses() == frozenset(map(ip_address, ("10.1.1.7", "fd00::7")))
    assert Scope(members=frozenset({("5", "10.1.1.0/24")})).addresses() is None
    assert Scope(members=frozenset(("5", f"10.1.1.{number}") for number in range(100))).addresses() is None
    assert EVERYTHING.addresses() is None


def test_who_takes_over_an_address_takes_over_no_flow_that_its_own_policy_forbids() -> None:
    """The first owner was let talk to the second guest, whose VLAN and address somebody else has now."""
    limited = InterfaceSettings(vmi_uuid=SECOND.vmi_uuid, policy=GuestPolicy(arriving=(LAYER,)))
    host = FakeHost()

    def want(*ports: Port) -> Desired:
        return desired_state(
            ports=ports,
            networks=make_view(make_network("red", 5)),
            interfaces=make_interfaces(ports, limited),
            policies=PolicyView(lists={LISTED: ()}, members={}),
            trunk=host.trunk,
            has_ipv6=True,
        )

    earlier = replace(make_port(3), addresses=SECOND.addresses)
    for action in plan_host(want=want(FIRST, earlier), have=host.see()).actions:
        host.apply(action)
    actions = plan_host(want=want(FIRST, SECOND), have=host.see()).actions
    scope = Scope()
    for action in actions:
        scope |= scope_of(action)
    assert judge().wrong(scope.of([flow()])) == [flow()]


@dataclass
class Table:
    """Flows in memory."""

    held: list[Flow]
    is_refusing: bool = False
    turned: list[Flow] = field(default_factory=list)

    def flows(self, zones: Collection[int], *, of: Collection[IpAddress] | None = None) -> list[Flow]:
        assert zones == {5}
        assert of is None
        if self.is_refusing:
            raise Rejected("conntrack", "list", reason="no")
        return self.held

    def turn(self, flows: Iterable[Flow]) -> None:
        self.turned += flows


def review(reconciler: Reconciler, applied: Applied) -> list[str]:
    return reconciler._review_flows(wanted(RULE), applied)


def reviewing(table: Table, filters: FakeFilters) -> Reconciler:
    """A reconciler that has what a review needs."""
    return Reconciler(
        ports=None, networks=None, interfaces=None, forwarding=None, gateway_macs=None, board=None,  # type: ignore[arg-type]
        filtering=filters,
        flow_table=table,
    )  # fmt: skip


def test_all_flows_are_reviewed_at_first_then_those_that_a_change_concerns_and_again_after_a_failure() -> None:
    table = Table(held=[flow(), flow(dst_port=81)])
    reconciler = reviewing(table, FakeFilters(FakeHost()))
    assert review(reconciler, Applied()) == ["flows: 1 revoked, 0 pass again"]
    assert table.turned == [table.held[1]]
    assert review(reconciler, Applied()) == [], "nothing has changed"
    table.is_refusing = True
    failed = Applied(done=[ReplaceFilters(subject="filters", elements={})])
    assert review(reconciler, failed) == []
    assert [failure.subject for failure in failed.failed] == ["flows"]
    table.is_refusing = False
    assert review(reconciler, Applied()) == ["flows: 1 revoked, 0 pass again"], "tried again"


class MarkedFirst(FakeFilters):
    """Filters that see which flows were marked when the flowtable was flushed, and may refuse that."""

    def __init__(self, table: Table) -> None:
        super().__init__(FakeHost())
        self.table = table
        self.marked: list[list[Flow]] = []
        self.is_refusing = False

    def flush_flowtable(self) -> None:
        if self.is_refusing:
            raise Rejected("nftables", "change", reason="no")
        self.marked.append(list(self.table.turned))


def test_the_flowtable_is_flushed_once_flows_are_marked_and_until_that_is_done() -> None:
    table = Table(held=[flow()])
    filters = MarkedFirst(table)
    reconciler = reviewing(table, filters)
    again = [ReplaceFilters(subject="filters", elements={})]
    assert review(reconciler, Applied(done=[*again])) == []
    assert filters.marked == [], "nothing is revoked"
    table.held = [flow(), flow(dst_port=81)]
    filters.is_refusing = True
    failed = Applied(done=[*again])
    assert review(reconciler, failed) == []
    assert [failure.subject for failure in failed.failed] == ["flows"]
    filters.is_refusing = False
    table.held[1] = flow(dst_port=81, is_revoked=True)
    assert review(reconciler, Applied()) == [], "marked already"
    assert filters.marked == [[flow(dst_port=81)]]
    assert review(reconciler, Applied()) == []
    assert len(filters.marked) == 1, "nothing has changed"
