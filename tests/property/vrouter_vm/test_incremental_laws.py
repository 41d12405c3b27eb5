"""The law of passes that follow changes: each leaves the host exactly as a pass that begins anew would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_network

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.fakes.peers import FakePeers
from tests.fakes.vrouter_host import FakeFilters, FakeHost, make_interfaces, make_network, make_port, make_view
from tests.property.vrouter_vm.test_laws import a_port
from tests.property.vrouter_vm.test_tunnel_laws import HERE, UNDERLAY, a_route, imports
from tf_reconcile.errors import Conflict, Rejected
from vrouter_vm import names
from vrouter_vm.changes import ChangeLog
from vrouter_vm.claims import Claim
from vrouter_vm.desired import all_wanted, tell_policies, whole
from vrouter_vm.filters.rules import Member, PolicyRule, PolicyView
from vrouter_vm.gateway_mac import MacRange
from vrouter_vm.guest_services.claim_box import ClaimBox
from vrouter_vm.kernel_model import Desired, MplsDriver
from vrouter_vm.model import (
    AddressPair,
    Encapsulation,
    Exporter,
    GuestPolicy,
    InterfaceSettings,
    InterfaceView,
    IpNetwork,
    ListKey,
    MacAddress,
    Network,
    NetworkView,
    PolicyLayer,
    Port,
    RouteTarget,
    RouteTargets,
    SetKey,
    StaticRoute,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, OverlayView, RouteKey
from vrouter_vm.reconciler import OverlaySide, Reconciler
from vrouter_vm.status import StatusBoard
from vrouter_vm.wanted.state import Wanted
from vrouter_vm.wanted.tunnels import Installed, Overlay

MACS = MacRange(first=MacAddress("00:50:56:00:00:00"), last=MacAddress("00:50:56:3f:ff:ff"))

BOTH = (Encapsulation.MPLS_UDP, Encapsulation.VXLAN)
RED = imports(make_network("red", 5, "10.1.1.0/24", "fd00:1::/64"), "64512:7", "64512:99")
RED = replace(RED, encapsulations=tuple(reversed(BOTH)))
BLUE = make_network("blue", 6, "10.1.1.0/24")
GREEN = replace(make_network("green", 7, "10.2.0.0/16"), vni=7000)

ROUTED = replace(
    RED,
    static_routes=tuple(
        StaticRoute(prefix=ip_network(prefix), next_hop=ip_address(next_hop))
        for prefix, next_hop in (
            *(("10.9.0.0/16", "10.1.1.12"), ("10.1.1.13/32", "10.1.1.11"), ("::/0", "fd00:1::12")),
            *(("10.6.0.0/16", "10.1.1.77"), ("10.1.1.12/32", "10.1.1.77"), ("fd00:6::/32", "fd00:1::77")),
            *(("10.5.0.0/16", "10.1.1.78"), ("10.8.1.0/24", "10.1.1.77")),
        )
    ),
)
"""Red with a route table; some of its prefixes may be a guest's, too. Guests share 10.1.1.77 and 78."""

KNOWN: Mapping[str, list[Network | str]] = {
    "red": [RED, make_network("red", 5, "10.1.1.0/24"), ROUTED, "TF has no such virtual network"],
    "blue": [
        *(BLUE, imports(BLUE, "64512:5"), replace(BLUE, encapsulations=BOTH), replace(BLUE, max_flows=50)),
        *(make_network("blue", 7, "10.1.1.0/24"), "TF is being asked"),
    ],
    "green": [GREEN, make_network("green", 5, "10.2.0.0/16"), replace(GREEN, vni=6)],
    "unknown": ["TF has no such virtual network", make_network("unknown", 9, "10.1.1.0/24")],
}


GROUP, TAG = SetKey("set:group:1"), SetKey("set:tag:1")
IN, OUT = ListKey("group:1:arriving"), ListKey("group:1:leaving")
GUEST_POLICIES = [
    GuestPolicy(),
    GuestPolicy(arriving=(PolicyLayer(name="groups", lists=(IN,), passes=False),)),
    GuestPolicy(
        leaving=(PolicyLayer(name="groups", lists=(OUT, IN), passes=True),),
        arriving=(PolicyLayer(name="groups", lists=(IN,), passes=False),),
    ),
]
LISTS: Mapping[ListKey, list[tuple[PolicyRule, ...]]] = {
    IN: [(), (PolicyRule(name="a", passes=True, src=((GROUP,),)),), (PolicyRule(name="b", passes=False),)],
    OUT: [(), (PolicyRule(name="c", passes=True, src=((TAG, GROUP),), dst=((TAG,),)),)],
}
MEMBERS: Mapping[SetKey, list[frozenset[Member]]] = {
    GROUP: [
        frozenset(),
        frozenset({(VnUuid("red"), "10.1.1.7"), (VnUuid("blue"), "10.1.1.7")}),
        frozenset({(VnUuid("red"), "10.1.0.0/16"), (VnUuid("red"), "10.1.1.0/24"), (VnUuid("green"), "fd00::7")}),
    ],
    TAG: [frozenset(), frozenset({(VnUuid("blue"), "10.1.1.8"), (VnUuid("unknown"), "10.1.1.9")})],
}
VIRTUAL_MAC = MacAddress("00:00:5e:00:01:07")
PAIRS = [
    (),
    (AddressPair(prefix=ip_network("10.1.1.77/32")), AddressPair(prefix=ip_network("10.1.1.11/32"))),
    (
        AddressPair(prefix=ip_network("10.1.1.77/32")),
        AddressPair(prefix=ip_network("10.1.1.77/32"), mac=VIRTUAL_MAC),
        AddressPair(prefix=ip_network("fd00:1::77/128"), mac=VIRTUAL_MAC),
    ),
    (AddressPair(prefix=ip_network("10.1.1.77/32"), is_shared=True),),
    tuple(
        AddressPair(prefix=ip_network(prefix), is_shared=True)
        for prefix in ("10.1.1.78/32", "fd00:1::78/128", "10.8.0.0/16")
    ),
    (AddressPair(prefix=ip_network("10.8.0.0/16")), AddressPair(prefix=ip_network("10.8.1.0/24"))),
]


def pairs(*names: str) -> frozenset[frozenset[VnUuid]]:
    return frozenset(frozenset(map(VnUuid, pair.split())) for pair in names)


CONNECTED = [pairs(), pairs("red blue"), pairs("red blue", "blue green"), pairs("blue green", "blue far")]
FAR = RouteTargets(own=frozenset({RouteTarget("64512:99")}), exports=frozenset({RouteTarget("64512:5")}))
EXPORTERS = {
    **{VnUuid(name): Exporter(network_id=number) for name, number in (("red", 5), ("blue", 6), ("green", 7))},
    VnUuid("far"): Exporter(network_id=9, targets=FAR),
}
"""Far has no guest here. What it exports only does not count."""


@dataclass(kw_only=True)
class Sources:
    """Ports and networks that say what has changed."""

    by_uuid: dict[VmiUuid, Port] = field(default_factory=dict)
    known: dict[VnUuid, Network | str] = field(
        default_factory=lambda: {VnUuid(vn): variants[0] for vn, variants in KNOWN.items()}
    )
    absent: set[VmiUuid] = field(default_factory=set)
    behind: dict[VmiUuid, tuple[IpNetwork, ...]] = field(default_factory=dict)
    settings: dict[VmiUuid, InterfaceSettings] = field(default_factory=dict)
    lists: dict[ListKey, tuple[PolicyRule, ...]] = field(
        default_factory=lambda: {key: variants[0] for key, variants in LISTS.items()}
    )
    members: dict[SetKey, frozenset[Member]] = field(
        default_factory=lambda: {key: variants[0] for key, variants in MEMBERS.items()}
    )
    connected: frozenset[frozenset[VnUuid]] = frozenset()
    policy_changes: ChangeLog[ListKey | SetKey] = field(default_factory=ChangeLog)
    port_changes: ChangeLog[VmiUuid] = field(default_factory=ChangeLog)
    network_changes: ChangeLog[VnUuid] = field(default_factory=ChangeLog)
    interface_changes: ChangeLog[VmiUuid] = field(default_factory=ChangeLog)

    def interfaces(self, vmi_uuids: Iterable[VmiUuid]) -> InterfaceView:
        ports = [self.by_uuid[vmi_uuid] for vmi_uuid in vmi_uuids]
        absent = {port.vmi_uuid: "TF has no such virtual-machine-interface" for port in ports}
        plain = {each: InterfaceSettings(vmi_uuid=each) for each in absent} | self.settings
        settings = [replace(plain[each], routes=self.behind.get(each, ())) for each in absent]
        missing: dict[str, str] = {key: text for key, text in absent.items() if key in self.absent}
        return make_interfaces(ports, *settings, missing=missing)

    def view(self, needed: frozenset[VnUuid], *, of: frozenset[VnUuid] | None = None) -> NetworkView:
        asked = {vn_uuid: self.known[vn_uuid] for vn_uuid in (needed if of is None else needed & of)}
        return make_view(
            *(each for each in asked.values() if isinstance(each, Network)),
            missing={vn_uuid: each for vn_uuid, each in asked.items() if isinstance(each, str)},
        )


class PortSource:
    """The ports' side of `Sources`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def take_changes(self) -> frozenset[VmiUuid] | None:
        return self._sources.port_changes.take()

    def ports(self) -> tuple[Port, ...]:
        return tuple(self._sources.by_uuid.values())

    def get(self, vmi_uuid: VmiUuid) -> Port | None:
        return self._sources.by_uuid.get(vmi_uuid)


class NetworkSource:
    """The networks' side of `Sources`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.view = sources.view

    def take_changes(self) -> frozenset[VnUuid] | None:
        return self._sources.network_changes.take()


class InterfaceSource:
    """The interfaces' side of `Sources`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def take_changes(self) -> frozenset[VmiUuid] | None:
        return self._sources.interface_changes.take()

    def view(self, needed: frozenset[VmiUuid], *, of: frozenset[VmiUuid] | None = None) -> InterfaceView:
        return self._sources.interfaces(needed if of is None else needed & of)

    def take_policy_changes(self) -> frozenset[ListKey | SetKey] | None:
        return self._sources.policy_changes.take()

    def policies(self, of: frozenset[ListKey | SetKey] | None = None) -> PolicyView:
        sources = self._sources
        return PolicyView(
            lists={key: rules for key, rules in sources.lists.items() if of is None or key in of},
            members={key: members for key, members in sources.members.items() if of is None or key in of},
            connected=sources.connected,
            exporters={vn_uuid: EXPORTERS[vn_uuid] for pair in sources.connected for vn_uuid in pair},
        )


class World:
    """A host that is kept by one reconciler."""

    def __init__(self, *, has_overlay: bool, mpls: MplsDriver = MplsDriver.BAREUDP) -> None:
        self.mpls = mpls
        self.host = FakeHost(underlay=UNDERLAY if has_overlay else None)
        self.sources = Sources()
        self.peers = FakePeers(are_all_new=False)
        self.board = StatusBoard()
        self.claims = ClaimBox(lambda: None)
        self.reconciler = self._reconciler(self.host, self.peers, self.board, has_overlay=has_overlay)
        self.reconciler.claims = self.claims
        self.has_overlay = has_overlay

    def _reconciler(self, host: FakeHost, peers: FakePeers, board: StatusBoard, *, has_overlay: bool) -> Reconciler:
        return Reconciler(
            ports=PortSource(self.sources),
            networks=NetworkSource(self.sources),
            interfaces=InterfaceSource(self.sources),
            forwarding=host,
            filtering=FakeFilters(host),
            gateway_macs=MACS,
            board=board,
            overlay=OverlaySide(peers=peers, vtep=HERE, asn=64512, mpls=self.mpls) if has_overlay else None,
            max_flows=1000,
        )

    def turn(self) -> None:
        self.reconciler.run_once(is_full=False)

    def check(self) -> None:
        """A fresh reconciler on this very host, told the same, finds nothing to do and says the same of every port."""
        applied, announced, board = len(self.host.applied), dict(self.peers.announced), StatusBoard()
        fresh = self._reconciler(self.host, self.peers, board, has_overlay=self.has_overlay)
        report = fresh.run_once(is_full=True)  # the changes that it takes have been followed already
        assert report.done == ()
        assert self.host.applied[applied:] == []
        assert self.peers.announced == announced
        assert board.outcome.statuses == self.board.outcome.statuses
        assert set(board.outcome.choices) == set(self.board.outcome.choices)

    def set_port(self, port: Port | None, vmi_uuid: VmiUuid) -> None:
        if port is None:
            self.sources.by_uuid.pop(vmi_uuid, None)
        else:
            self.sources.by_uuid[vmi_uuid] = port
        self.sources.port_changes.note([vmi_uuid])

    def claim(self, vmi_uuid: VmiUuid, address: str, mac: MacAddress | None, *, is_answer: bool) -> None:
        port = self.sources.by_uuid.get(vmi_uuid)
        if port is not None:
            self.claims.put(
                Claim(
                    vmi_uuid=vmi_uuid,
                    network_id=5,
                    address=ip_address(address),
                    mac=mac or port.mac,
                    is_answer=is_answer,
                )
            )

    def set_absent(self, vmi_uuid: VmiUuid, *, is_absent: bool) -> None:
        if is_absent:
            self.sources.absent.add(vmi_uuid)
        else:
            self.sources.absent.discard(vmi_uuid)
        self.sources.interface_changes.note([vmi_uuid])

    def set_behind(self, vmi_uuid: VmiUuid, prefixes: Iterable[str]) -> None:
        self.sources.behind[vmi_uuid] = tuple(map(ip_network, prefixes))
        self.sources.interface_changes.note([vmi_uuid])

    def set_settings(self, given: InterfaceSettings) -> None:
        self.sources.settings[given.vmi_uuid] = given
        self.sources.interface_changes.note([given.vmi_uuid])

    def set_list(self, key: ListKey, rules: tuple[PolicyRule, ...]) -> None:
        self.sources.lists[key] = rules
        self.sources.policy_changes.note([key])

    def set_members(self, key: SetKey, members: frozenset[Member]) -> None:
        self.sources.members[key] = members
        self.sources.policy_changes.note([key])

    def connect(self, connected: frozenset[frozenset[VnUuid]]) -> None:
        self.sources.connected = connected

    def set_network(self, vn_uuid: str, known: Network | str) -> None:
        self.sources.known[VnUuid(vn_uuid)] = known
        self.sources.network_changes.note([VnUuid(vn_uuid)])


Change = Callable[[World], None]


@st.composite
def a_change(draw: st.DrawFn) -> Change:
    kinds = [
        "port",
        "port",
        "port",
        "no port",
        "network",
        "interface",
        "behind",
        "settings",
        "policy",
        "routes",
        "claim",
    ]
    kind = draw(st.sampled_from(kinds))
    if kind == "port":
        port = draw(a_port(draw(st.integers(1, 6))))
        return lambda world: world.set_port(port, port.vmi_uuid)
    if kind == "no port":
        gone = draw(a_port(draw(st.integers(1, 6)))).vmi_uuid
        return lambda world: world.set_port(None, gone)
    if kind == "interface":
        named, is_absent = draw(a_port(draw(st.integers(1, 6)))).vmi_uuid, draw(st.booleans())
        return lambda world: world.set_absent(named, is_absent=is_absent)
    if kind == "behind":
        router = draw(a_port(draw(st.integers(1, 6)))).vmi_uuid
        prefixes = draw(st.sets(st.sampled_from(["10.9.0.0/16", "10.1.1.12/32", "0.0.0.0/0", "fd00:9::/32"])))
        return lambda world: world.set_behind(router, sorted(prefixes))
    if kind == "network":
        vn_uuid = draw(st.sampled_from(sorted(KNOWN)))
        known = draw(st.sampled_from(KNOWN[vn_uuid]))
        return lambda world: world.set_network(vn_uuid, known)
    if kind == "settings":
        settings = InterfaceSettings(
            vmi_uuid=draw(a_port(draw(st.integers(1, 6)))).vmi_uuid,
            is_secured=draw(st.booleans()),
            address_pairs=draw(st.sampled_from(PAIRS)),
            policy=draw(st.sampled_from(GUEST_POLICIES)),
            max_flows=draw(st.sampled_from([0, 50, 1000])),
        )
        return lambda world: world.set_settings(settings)
    if kind == "policy":
        return draw(a_policy_change())
    if kind == "claim":
        claimant, mac = draw(a_port(draw(st.integers(1, 6)))).vmi_uuid, draw(st.sampled_from([None, VIRTUAL_MAC]))
        address, is_answer = draw(st.sampled_from(["10.1.1.77", "fd00:1::77", "10.1.1.11"])), draw(st.booleans())
        return lambda world: world.claim(claimant, address, mac, is_answer=is_answer)
    route, is_gone = draw(a_route()), draw(st.booleans())
    return lambda world: hear(world.peers, route, is_gone=is_gone)


@st.composite
def a_policy_change(draw: st.DrawFn) -> Change:
    what = draw(st.sampled_from(["list", "members", "connected"]))
    if what == "list":
        listed = draw(st.sampled_from(sorted(LISTS)))
        rules = draw(st.sampled_from(LISTS[listed]))
        return lambda world: world.set_list(listed, rules)
    if what == "members":
        key = draw(st.sampled_from(sorted(MEMBERS)))
        members = draw(st.sampled_from(MEMBERS[key]))
        return lambda world: world.set_members(key, members)
    connected = draw(st.sampled_from(CONNECTED))
    return lambda world: world.connect(connected)


def hear(peers: FakePeers, route: BgpRoute, *, is_gone: bool) -> None:
    others = [other for key, other in peers.remote.items() if key != route.key]
    peers.hear(*others, *([] if is_gone else [route]))


steps = st.lists(st.lists(a_change(), min_size=1, max_size=3), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(changes=steps, has_overlay=st.booleans(), mpls=st.sampled_from([*MplsDriver]))
def test_after_every_pass_a_pass_that_begins_anew_has_nothing_to_do(
    *, changes: list[list[Change]], has_overlay: bool, mpls: MplsDriver
) -> None:
    world = World(has_overlay=has_overlay, mpls=mpls)
    world.turn()
    for step in changes:
        for change in step:
            change(world)
        before = world.host.observations
        world.turn()
        event("followed" if world.host.observations == before else "began anew")
        world.check()


def test_a_vni_goes_to_the_network_that_wants_it_and_not_to_one_that_is_only_kept() -> None:
    world = World(has_overlay=True)
    kept, newcomer = make_port(5, vn="green", addresses=("10.2.0.15",)), make_port(1, vn="blue")
    world.set_network("green", replace(GREEN, vni=BLUE.network_id))
    world.set_port(kept, kept.vmi_uuid)
    world.turn()
    assert world.host.vxlans["x6"].vrf == "v7"
    world.set_absent(kept.vmi_uuid, is_absent=True)
    world.set_port(newcomer, newcomer.vmi_uuid)
    world.turn()
    assert world.host.vifs["eth1.105"].vrf == "v7", "the guest's own VRF is left as it was"
    assert world.host.vxlans["x6"].vrf == "v6", "else the two networks would be one on the way"
    assert ("x6", "6") in world.host.elements["zones"]
    assert ("x6", "7") not in world.host.elements["zones"]
    world.check()


def test_ways_by_another_networks_vni_outlive_the_change_of_its_device_when_that_network_gets_and_loses_its_guest() -> (
    None
):
    world = World(has_overlay=True)
    there = IPv4Address("192.0.2.2")
    world.peers.hear(
        EvpnRoute(
            rd=f"{there}:7",
            prefix=ip_network("10.2.0.20/32"),
            vni=7000,
            next_hop=there,
            router_mac=names.router_mac_of(there),
            targets=frozenset({RouteTarget("64512:7")}),
            generation=100,
        )
    )
    sender, newcomer = make_port(1), make_port(2, vn="green", addresses=("10.2.0.15",))
    world.set_port(sender, sender.vmi_uuid)
    world.turn()
    for port, vrf in ((newcomer, "v7"), (None, None)):
        world.set_port(port, newcomer.vmi_uuid)
        before = world.host.observations
        world.turn()
        assert world.host.observations == before, "followed, not begun anew"
        assert world.host.vxlans["x7000"].vrf == vrf
        world.check()


@settings(max_examples=60, deadline=None)
@given(changes=steps, fail_at=st.integers(0, 40), failure=st.sampled_from([Conflict, Rejected]))
def test_after_a_failure_the_next_pass_begins_anew_and_mends_it(
    changes: list[list[Change]], fail_at: int, failure: type[Conflict] | type[Rejected]
) -> None:
    world = World(has_overlay=True)
    world.turn()
    world.host.fail_at, world.host.failure = len(world.host.applied) + fail_at, failure
    for step in changes:
        for change in step:
            change(world)
        world.turn()
    world.host.fail_at = None
    world.turn()
    world.check()


@settings(max_examples=100, deadline=None)
@given(changes=steps)
def test_what_is_wanted_does_not_depend_on_the_way_there(changes: list[list[Change]]) -> None:
    world = World(has_overlay=True)
    wanted = Wanted(trunk=world.host.trunk, has_ipv6=True, has_resilient_groups=True, overlay=overlay_of({}))
    seen: set[VnUuid] = set()
    for step in changes:
        for change in step:
            change(world)
        for vmi_uuid in world.sources.port_changes.take() or ():
            wanted.places.set_port(vmi_uuid, world.sources.by_uuid.get(vmi_uuid))
        for vmi_uuid, port in world.sources.by_uuid.items():
            if wanted.places.ports.get(vmi_uuid) != port:
                wanted.places.set_port(vmi_uuid, port)
        for vn_uuid in wanted.places.needed | seen:
            wanted.places.set_network(
                vn_uuid, world.sources.known[vn_uuid] if vn_uuid in wanted.places.needed else None
            )
        seen |= wanted.places.needed
        for vmi_uuid in [*world.sources.by_uuid, *wanted.places.ports]:
            is_here = vmi_uuid in world.sources.by_uuid
            view = world.sources.interfaces([vmi_uuid] if is_here else [])
            wanted.places.set_interface(vmi_uuid, view.known.get(vmi_uuid) or view.missing.get(vmi_uuid))
        tell_policies(wanted, InterfaceSource(world.sources).policies(world.sources.policy_changes.take()))
        for key in world.peers.changed:
            wanted.set_remote(key, world.peers.remote.get(key))
        world.peers.changed = set()
        wanted.settle()
    told = {key: each.route.generation for key, each in wanted.facts.announcements.now.items()}
    fresh = all_wanted(
        ports=world.sources.by_uuid.values(),
        networks=world.sources.view(wanted.places.needed),
        interfaces=world.sources.interfaces(world.sources.by_uuid),
        policies=InterfaceSource(world.sources).policies(),
        trunk=world.host.trunk,
        has_ipv6=True,
        has_resilient_groups=True,
        overlay=overlay_of(world.peers.remote, generations=told),
    )
    assert comparable(whole(wanted)) == comparable(whole(fresh))


def overlay_of(remote: Mapping[RouteKey, BgpRoute], *, generations: Mapping[RouteKey, int] | None = None) -> Overlay:
    view = OverlayView(
        announced={},
        generations=generations or {},
        remote=remote,
        is_settled=True,
        gone=frozenset(),
        look_again_s=None,
    )
    return Overlay(vtep=HERE, asn=64512, underlay=UNDERLAY, view=view, installed=Installed(), mpls=MplsDriver.BAREUDP)


def comparable(want: Desired) -> Desired:
    return replace(want, choices=tuple(sorted(want.choices, key=repr)))
