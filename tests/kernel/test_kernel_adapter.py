"""The kernel adapters against the real kernel, and the fake host against both: a fake that is kinder fails here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import msgspec
import pytest

from tests.fakes.vrouter_host import (
    TRUNK_MAC,
    FakeFilters,
    FakeHost,
    make_interfaces,
    make_network,
    make_port,
    make_view,
)
from tests.kernel.site import R1, batch, has_own_bareudp, inside, kernel_with_bareudp, run, vrouter_namespace
from tf_reconcile.errors import BoundaryError, Conflict, Rejected, Transient
from vrouter_vm import names
from vrouter_vm.actions import (
    HOST,
    AddRoute,
    Announce,
    AnyAction,
    ChangeElements,
    CreateVrf,
    DeleteLink,
    ReplaceFilters,
    SetSysctl,
    SetUp,
    Withdraw,
)
from vrouter_vm.desired import desired_state
from vrouter_vm.filters import policy
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.kernel.adapter import Kernel
from vrouter_vm.kernel.fou import FouPort
from vrouter_vm.kernel.mpls import has_bareudp
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.kernel_model import MplsDriver, Observed, Route, Sysctl, Underlay, Vrf, Vxlan
from vrouter_vm.model import AddressPair, Encapsulation, InterfaceSettings, Port, RouteTarget
from vrouter_vm.overlay.evpn import SHARED_DISCRIMINATOR, SHARED_GENERATION, Vtep, labelled
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, OverlayView
from vrouter_vm.plan import plan_host
from vrouter_vm.wanted.links import route_to
from vrouter_vm.wanted.tunnels import Installed, Overlay

pytestmark = pytest.mark.kernel

HERE = IPv4Address("192.0.2.1")
UNDERLAY = Underlay(name="eth2", mtu_bytes=1600)
RED = replace(
    make_network("red", 5, "10.1.1.0/24", "fd00:1::/64"), encapsulations=(Encapsulation.VXLAN, Encapsulation.MPLS_UDP)
)
VIEW = make_view(RED, make_network("blue", 6))
FIRST = [make_port(1, addresses=("10.1.1.11", "fd00:1::11")), make_port(2, vn="blue"), make_port(3, is_enabled=False)]
THEN = [make_port(1, vn="blue"), make_port(4), make_port(3, mac="00:50:56:aa:00:99")]
AT_ONCE = tuple(AddressPair(prefix=ip_network(each), is_shared=True) for each in ("10.1.1.78/32", "fd00:1::78/128"))
"""What all of these guests use at the same time."""


class RealHost:
    """The adapters, side by side as the reconciler has them."""

    def __init__(self, netlink: RouteSocket, nft: LibNftables, fou_port: FouPort) -> None:
        self.netlink = netlink
        self.kernel = Kernel(netlink, trunk="eth1", underlay="eth2", fou_port=fou_port)
        self.filters = FilterTables(nft, trunk="eth1", has_flowtable=True)

    def see(self) -> Observed:
        return self.kernel.observe(self.filters.observe())

    def apply(self, action: AnyAction) -> None:
        if isinstance(action, Announce | Withdraw):
            raise TypeError("that is for the speaker")
        if isinstance(action, ReplaceFilters | ChangeElements):
            self.filters.apply(action)
        else:
            for error in self.kernel.apply_all([action]):
                if error is not None:
                    raise error


@pytest.fixture(scope="module")
def host() -> Iterator[RealHost]:
    run("modprobe -a mpls_router mpls_iptunnel ipip fou")
    with vrouter_namespace():
        batch(f"link add eth2 mtu {UNDERLAY.mtu_bytes} type dummy", "link set eth2 up")
        nft = LibNftables()
        with RouteSocket() as netlink, closing(FouPort(HERE, names.MPLS_PORT)) as fou_port:
            yield RealHost(netlink, nft, fou_port)
        nft.close()


def test_filters_that_were_hooked_to_a_trunk_that_has_gone_are_not_intact(host: RealHost) -> None:
    with inside(R1.name):
        nft = LibNftables()
        assert nft.has_flowtables()
        filters = FilterTables(nft, trunk="eth9", has_flowtable=True)
        for _ in range(2):
            batch("link add eth9 type dummy", namespace=R1.name)
            assert not filters.observe().is_intact
            filters.apply(ReplaceFilters(subject="filters", elements=policy.merge_elements()))
            assert filters.observe().is_intact
            assert filters.read().is_intact
            filters.flush_flowtable()
            assert filters.read().is_intact, "emptied, and the same"
            batch("link del eth9", namespace=R1.name)
        nft.close()


def plan(
    host: RealHost | FakeHost,
    ports: list[Port],
    remote: Iterable[BgpRoute] | None = None,
    *,
    mpls: MplsDriver = MplsDriver.FOU,
) -> tuple[AnyAction, ...]:
    """The plan without what is for the speaker; with an overlay if `remote` is not None."""
    have = host.see()
    overlay = None if remote is None else overlay_with(remote, mpls)
    settings = [InterfaceSettings(vmi_uuid=port.vmi_uuid, address_pairs=AT_ONCE) for port in ports]
    want = desired_state(
        ports=ports,
        networks=VIEW,
        interfaces=make_interfaces(ports, *settings),
        trunk=have.trunk,
        has_ipv6=have.has_ipv6,
        has_resilient_groups=have.has_resilient_groups,
        overlay=overlay,
    )
    actions = plan_host(want=want, have=have).actions
    return tuple(action for action in actions if not isinstance(action, Announce | Withdraw))


def turn(
    host: RealHost | FakeHost,
    ports: list[Port],
    remote: Iterable[BgpRoute] | None = None,
    *,
    most: int | None = None,
    mpls: MplsDriver = MplsDriver.FOU,
) -> None:
    for action in plan(host, ports, remote, mpls=mpls)[:most]:
        host.apply(action)


def overlay_with(remote: Iterable[BgpRoute], mpls: MplsDriver) -> Overlay:
    view = OverlayView(
        announced={},
        generations={},
        remote={route.key: route for route in remote},
        is_settled=True,
        gone=frozenset(),
        look_again_s=None,
    )
    vtep = Vtep(address=HERE, router_mac=names.router_mac_of(HERE))
    return Overlay(vtep=vtep, asn=64512, underlay=UNDERLAY, view=view, installed=Installed(), mpls=mpls)


def elsewhere(prefix: str, *, host: int = 2, network_id: int = 5, generation: int = 100) -> EvpnRoute:
    vtep = IPv4Address(f"192.0.2.{host}")
    return EvpnRoute(
        rd=f"{vtep}:{network_id}",
        prefix=ip_network(prefix),
        vni=network_id,
        next_hop=vtep,
        router_mac=names.router_mac_of(vtep),
        targets=frozenset({RouteTarget(f"64512:{network_id}")}),
        generation=generation,
    )


def at_once(prefix: str, *, host: int) -> EvpnRoute:
    """What guests of another host and of this one use at the same time."""
    route = elsewhere(prefix, host=host, generation=SHARED_GENERATION)
    return msgspec.structs.replace(route, med=SHARED_DISCRIMINATOR)


def comparable(seen: Observed) -> Observed:
    """Without what a real host has of its own: other devices, settings that nobody asked for, counters."""
    asked_for = desired_state(
        ports=FIRST, networks=VIEW, interfaces=make_interfaces(FIRST), trunk=seen.trunk, has_ipv6=True
    ).sysctls
    return replace(
        seen,
        foreign_names=frozenset(),
        sysctls={sysctl: value for sysctl, value in seen.sysctls.items() if sysctl in asked_for},
        filters=replace(seen.filters, drops={}),
    )


def test_the_fake_host_and_the_kernel_come_to_the_same(host: RealHost) -> None:
    fake = FakeHost(underlay=UNDERLAY)
    assert host.see().trunk.mac == TRUNK_MAC
    for ports in (FIRST, THEN, [], FIRST):
        turn(host, ports)
        turn(fake, ports)
        assert plan(host, ports) == ()
        assert replace(comparable(host.see()), sysctls={}) == replace(comparable(fake.see()), sysctls={})
    assert comparable(host.see()) == comparable(fake.see())
    assert FakeFilters(fake).observe().elements == host.filters.observe().elements


LABELLED = [labelled(elsewhere(prefix, host=4), 30) for prefix in ("10.1.1.60/32", "fd00:1::60/128")]
BY_A_GATEWAY = msgspec.structs.replace(elsewhere("10.1.1.52/32"), rd="10.1.1.1:5", next_hop=IPv4Address("10.1.1.1"))
"""The VTEP has the address that the router has in red, and the kernel takes no route by it."""

HEARD: list[list[BgpRoute]] = [
    [elsewhere("10.1.1.50/32"), elsewhere("fd00:1::50/128"), elsewhere("10.1.1.51/32", host=3), elsewhere("0.0.0.0/0")],
    [elsewhere("10.1.1.50/32", host=3), elsewhere("fd00:1::/64"), elsewhere("10.1.1.0/24"), elsewhere("10.1.1.11/32")],
    [BY_A_GATEWAY],
    [elsewhere("10.1.1.50/32"), *LABELLED],
    [LABELLED[1], labelled(elsewhere("10.1.1.60/32", host=5), 31), labelled(elsewhere("10.1.1.50/32", host=5), 32)],
    [elsewhere("10.1.1.11/32", generation=200), elsewhere("10.9.0.0/16", network_id=99), elsewhere("fd00:1::50/128")],
    [at_once(str(pair.prefix), host=number) for pair in AT_ONCE for number in (2, 3)],
    [labelled(at_once(str(AT_ONCE[0].prefix), host=number), 30 + number) for number in (4, 5)],
    [
        *(at_once(str(pair.prefix), host=number) for pair in AT_ONCE for number in (3, 4)),
        *(elsewhere(prefix, host=number) for prefix in ("10.9.0.0/16", "fd00:9::/64") for number in (2, 3)),
        *(labelled(elsewhere("10.8.0.0/16", host=number), 30 + number) for number in (4, 5)),
    ],
    [],
]


def test_they_come_to_the_same_with_tunnels(host: RealHost) -> None:
    fake = FakeHost(underlay=UNDERLAY)
    for real_or_fake in (host, fake):
        turn(real_or_fake, [])
    for remote in (*HEARD, *reversed(HEARD)):
        turn(host, FIRST, remote)
        turn(fake, FIRST, remote)
        assert plan(host, FIRST, remote) == ()
        assert replace(comparable(host.see()), sysctls={}) == replace(comparable(fake.see()), sysctls={})
    turn(host, FIRST)
    assert host.see().vxlans == {}


def test_they_do_when_guests_come_and_go_that_use_an_address_at_once(host: RealHost) -> None:
    fake = FakeHost(underlay=UNDERLAY)
    four = [*THEN, make_port(5), make_port(6)]
    for ports in (four, THEN, FIRST, four, four[1:]):
        for real_or_fake in (host, fake):
            turn(real_or_fake, ports, HEARD[-2])
        assert plan(host, ports, HEARD[-2]) == ()
        assert replace(comparable(host.see()), sysctls={}) == replace(comparable(fake.see()), sysctls={})
    turn(host, FIRST)


def test_a_change_of_the_underlays_mtu_is_followed_without_a_new_device(host: RealHost) -> None:
    turn(host, FIRST, HEARD[0])
    number = run("ip -o link show x5").partition(":")[0]
    batch("link set x5 mtu 1400")
    turn(host, FIRST, HEARD[0])
    told = run("ip -o link show x5")
    assert "mtu 1500" in told
    assert told.partition(":")[0] == number
    turn(host, FIRST)


def test_a_tunnel_that_somebody_has_changed_is_made_anew(host: RealHost) -> None:
    turn(host, FIRST, HEARD[0])
    batch("link del x5", "link add x5 address 02:00:00:00:00:99 type vxlan id 77 local 192.0.2.9 dstport 4789")
    turn(host, FIRST, HEARD[0])
    assert plan(host, FIRST, HEARD[0]) == ()
    vxlan = host.see().vxlans["x5"]
    assert isinstance(vxlan, Vxlan)
    assert vxlan.vtep == HERE
    turn(host, FIRST)


@pytest.mark.parametrize(
    "harm",
    [
        "ip -f mpls route del 100005",
        "ip link del l5",
        "ip link set i5 nomaster",
        "ip neigh del 192.0.0.8 dev l5",
        "ip route replace 10.1.1.60/32 encap mpls 99 dev mc0000204 table 100005 proto 80 scope link",
        "ip link del mc0000204",
    ],
)
def test_what_belongs_to_mpls_is_mended(host: RealHost, harm: str) -> None:
    turn(host, FIRST, LABELLED)
    assert plan(host, FIRST, LABELLED) == ()
    run(harm)
    turn(host, FIRST, LABELLED)
    assert plan(host, FIRST, LABELLED) == ()
    assert "100005 via inet 192.0.0.8 dev l5 proto 80" in run("ip -f mpls route")
    assert "encap mpls  30 dev mc0000204" in run("ip route show table 100005")


@pytest.mark.parametrize("cut", [3, 11, 19, 33, 47])
def test_a_crash_between_two_actions_converges(host: RealHost, cut: int) -> None:
    turn(host, FIRST)
    turn(host, THEN, most=cut)
    turn(host, FIRST if cut % 2 else THEN)
    assert plan(host, FIRST if cut % 2 else THEN) == ()


def test_the_settings_in_the_link_dump_are_those_in_proc(host: RealHost) -> None:
    turn(host, FIRST)
    seen = host.see().sysctls
    assert len(seen) > 20
    assert seen == {sysctl: int((Path("/proc/sys/net") / sysctl.path).read_text()) for sysctl in seen}


def test_the_kernels_refusals_are_told_apart(host: RealHost) -> None:
    turn(host, FIRST)
    elsewhere = Route(table=100005, prefix=make_network("x", 1, "10.9.0.0/16").subnets[0].prefix, ifname="eth1.999")
    cases: list[tuple[AnyAction, type[BoundaryError]]] = [
        (CreateVrf(subject="v5", vrf=Vrf(name="v5", table=100005)), Conflict),
        (AddRoute(subject="eth1.999", route=elsewhere), Conflict),
        (SetUp(subject="v99", ifname="v99"), Conflict),
        (SetSysctl(subject=HOST, sysctl=Sysctl(path="ipv4/ip_forward", ifname=None), value=10**12), Rejected),
    ]
    for action, kind in cases:
        with pytest.raises(kind, match="kernel"):
            host.apply(action)
    batch("link set eth1.103 down")
    route = route_to(table=100005, prefix=ip_network(make_port(3).addresses[0]), ifname="eth1.103")
    with pytest.raises(Transient, match="kernel"):
        host.apply(AddRoute(subject="eth1.103", route=route))
    turn(host, FIRST)


def test_what_is_gone_already_is_deleted(host: RealHost) -> None:
    host.apply(DeleteLink(subject="eth1.999", ifname="eth1.999"))


def test_a_set_change_that_cannot_be_is_refused_whole(host: RealHost) -> None:
    turn(host, FIRST)
    before = replace(host.filters.observe(), drops={})
    absent = {**before.elements, policy.VIFS: before.elements[policy.VIFS] | {("eth1.999",)}}
    with pytest.raises(Rejected, match="nftables"):
        host.apply(ChangeElements(subject="filters", want={policy.VIFS: frozenset()}, have=absent))
    assert replace(host.filters.observe(), drops={}) == before


def test_routes_addresses_and_rules_of_others_are_left_alone(host: RealHost) -> None:
    batch(
        "link add other type dummy",
        "link set other up",
        "addr add 198.18.0.1/24 dev other",
        "route add 198.19.0.0/24 via 198.18.0.2",
        "rule add pref 500 from 198.18.0.0/24 lookup 77",
        "route add 198.20.0.0/24 via 198.18.0.2 table 77",
    )
    commands = ("ip addr show dev other", "ip route show dev other", "ip route show table 77", "ip rule show pref 500")
    before = [run(command) for command in commands]
    turn(host, THEN)
    turn(host, [])
    assert [run(command) for command in commands] == before
    batch("rule del pref 500", "link del other")


@pytest.fixture(scope="module")
def with_bareudp(host: RealHost) -> Iterator[RealHost]:
    assert has_own_bareudp() or not has_bareudp(host.netlink)
    turn(host, FIRST, LABELLED)
    with kernel_with_bareudp():
        assert has_bareudp(host.netlink)
        yield host
        turn(host, FIRST)


def test_with_bareudp_they_come_to_the_same_and_by_fou_before_and_after(with_bareudp: RealHost) -> None:
    fake = FakeHost(underlay=UNDERLAY)
    steps: list[tuple[list[BgpRoute], MplsDriver]] = [
        *((heard, MplsDriver.BAREUDP) for heard in HEARD[2:4]),
        ([*LABELLED], MplsDriver.FOU),
        (HEARD[4], MplsDriver.BAREUDP),
        (HEARD[7], MplsDriver.BAREUDP),
    ]
    for remote, mpls in steps:
        turn(with_bareudp, FIRST, remote, mpls=mpls)
        turn(fake, FIRST, remote, mpls=mpls)
        assert plan(with_bareudp, FIRST, remote, mpls=mpls) == ()
        assert replace(comparable(with_bareudp.see()), sysctls={}) == replace(comparable(fake.see()), sysctls={})


@pytest.mark.parametrize(
    "harm",
    [
        "ip link del m6635",
        "ip link del u6635",
        "ip link set u6635 down",
        "tc qdisc del dev m6635 clsact",
        "tc filter del dev m6635 egress protocol mpls_uc prio 1 handle 0xc0000204 flower",
        "tc filter replace dev m6635 egress protocol mpls_uc prio 1 handle 0xc0000204 flower "
        "dst_mac 02:00:c0:00:02:04 action drop",
        "tc filter replace dev m6635 egress protocol mpls_uc prio 1 handle 0xc0000277 flower "
        "dst_mac 02:00:c0:00:02:77 action drop",
        "ip neigh del 192.0.2.4 dev m6635",
    ],
)
def test_what_belongs_to_mpls_by_bareudp_is_mended(with_bareudp: RealHost, harm: str) -> None:
    bareudp = MplsDriver.BAREUDP
    turn(with_bareudp, FIRST, LABELLED, mpls=bareudp)
    run(harm)
    assert plan(with_bareudp, FIRST, LABELLED, mpls=bareudp) != ()
    turn(with_bareudp, FIRST, LABELLED, mpls=bareudp)
    assert plan(with_bareudp, FIRST, LABELLED, mpls=bareudp) == ()
    told = run("tc filter show dev m6635 egress")
    for word in ("dst_ip 192.0.2.4", "src_ip 192.0.2.1", "nocsum", "ttl 64", "Redirect to device u6635"):
        assert told.count(word) == 1
    assert "encap mpls  30 via 192.0.2.4 dev m6635" in run("ip route show table 100005")
