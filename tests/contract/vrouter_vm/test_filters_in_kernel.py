"""What `FilterTables` remembers is what the real kernel has, and its counters are the kernel's."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.contract.vrouter_vm.packet_rig import Rig, RigGuest, own_namespace, running_rig
from tests.kernel.site import run, wait_until
from vrouter_vm.actions import ChangeElements, ReplaceFilters
from vrouter_vm.filters import chains, policy
from vrouter_vm.filters.libnftables import LibNftables
from vrouter_vm.filters.rules import Packet, PolicyRule, Service
from vrouter_vm.filters.tables import FilterTables
from vrouter_vm.filters.watch import FilterWatch
from vrouter_vm.kernel_model import ChainRule, Element, ObservedFilters
from vrouter_vm.model import GuestPolicy, ListKey, PolicyLayer

A = RigGuest(number=101, zone=5, addresses=(ip_address("10.1.1.11"), ip_address("fd00:1::11")))
B = RigGuest(number=102, zone=5, addresses=(ip_address("10.1.1.12"), ip_address("fd00:1::12")))
OTHER = RigGuest(number=103, zone=6, addresses=())
ROUTER = RigGuest(number=104, zone=0, addresses=(ip_address("192.0.2.4"),), nic="underlay0")
ADMIN = RigGuest(number=105, zone=0, addresses=(ip_address("198.51.100.5"),), nic="mgmt0")
LISTED = ListKey("group:web:arriving")


@pytest.fixture
def rig() -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with running_rig([A, B, OTHER, ROUTER, ADMIN]) as running:
        yield running


def members(number: int) -> dict[str, frozenset[Element]]:
    """Elements of two sets, single addresses and prefixes."""
    singles = frozenset(("5", f"10.8.{each >> 8}.{each & 255}") for each in range(number))
    return {"set-group-web-a4": singles, "set-group-web-p4": frozenset({("5", "10.9.0.0/16")})}


def rules(number: int) -> dict[str, tuple[ChainRule, ...]]:
    return {
        "list-group-web-arriving": tuple(
            ChainRule(f"ct zone . ip saddr @set-group-web-a4 th dport {port} counter meta mark set 1 return", f"{port}")
            for port in range(1, number + 1)
        )
    }


@pytest.mark.parametrize("number", [3, 6000])
def test_what_was_loaded_is_remembered_as_the_kernel_has_it_at_any_size(rig: Rig, number: int) -> None:
    filters = FilterTables(rig.nft, trunk="eth1")
    elements = policy.merge_elements(members(number), {policy.VIFS: frozenset({("eth1.101",)})})
    filters.apply(ReplaceFilters(subject="filters", elements=elements, chains=rules(3) | chains.limit_chains(1000)))
    remembered = filters.observe()
    assert remembered.is_intact
    assert remembered.elements == elements
    assert replace(filters.read(), drops={}) == replace(remembered, drops={})
    change = ChangeElements(
        subject="filters",
        want={"set-group-web-a4": members(number + 1)["set-group-web-a4"]},
        have={"set-group-web-a4": members(number)["set-group-web-a4"]},
        chains=rules(4),
    )
    filters.apply(change)
    remembered = filters.observe()
    assert len(remembered.elements["set-group-web-a4"]) == number + 1
    assert len(remembered.chains["list-group-web-arriving"]) == 4
    assert replace(filters.read(), drops={}) == replace(remembered, drops={})


def test_what_somebody_else_has_changed_is_seen(rig: Rig) -> None:
    filters = FilterTables(rig.nft, trunk="eth1")
    filters.apply(ReplaceFilters(subject="filters", elements=policy.merge_elements(members(3)), chains=rules(3)))
    run("nft flush chain inet vrouter list-group-web-arriving")
    assert filters.observe().chains == {"list-group-web-arriving": ()}
    assert filters.observe().is_intact, "what policies need is mended by a change"
    run("nft flush chain inet vrouter settled")
    assert not filters.observe().is_intact


TUNNELLED = "udp dport {{ {} }} iifname . ip saddr @vteps notrack"


@pytest.fixture
def nft() -> Iterator[LibNftables]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_namespace():
        opened = LibNftables()
        yield opened
        opened.close()


def load(nft: LibNftables) -> None:
    filters = FilterTables(nft, trunk="eth1")
    filters.apply(ReplaceFilters(subject="filters", elements=policy.merge_elements(members(3)), chains=rules(3)))


def observed_anew(nft: LibNftables) -> ObservedFilters:
    """What an agent that is started now makes of the tables."""
    return FilterTables(nft, trunk="eth1").observe()


@pytest.mark.parametrize(
    "tampering",
    [
        ("delete table arp vrouter",),
        ("add table inet vrouter { flags dormant; }",),
        ("add chain inet vrouter forward { policy drop; }",),
        ("add chain inet vrouter mine { type filter hook forward priority -1; }",),
        ("insert rule inet vrouter forward accept",),
        ("flush chain inet vrouter admit",),
        (
            "flush chain inet vrouter admit",
            "add rule inet vrouter admit accept; add rule inet vrouter admit mark set 0",
        ),
        ("flush chain inet vrouter prerouting", f"add rule inet vrouter prerouting {TUNNELLED.format('4789, 6637')}"),
        ("flush chain inet vrouter in_zone", "add rule inet vrouter in_zone ct zone set oifname map @zones"),
        ("add set inet vrouter mine { type ifname; }",),
        ("add counter inet vrouter mine",),
        ('add rule inet vrouter loaded return comment "rules=1 listing=2"',),
    ],
    ids=" then ".join,
)
def test_whatever_somebody_changes_in_the_fixed_tables_is_found_by_a_fresh_process(
    nft: LibNftables, tampering: tuple[str, ...]
) -> None:
    load(nft)
    assert observed_anew(nft).is_intact
    for command in tampering:
        nft.run(command, operation="tamper")
    assert not observed_anew(nft).is_intact


def test_a_rule_that_is_put_back_as_it_was_is_nobodys_change(nft: LibNftables) -> None:
    load(nft)
    for command in (
        "flush chain inet vrouter prerouting",
        f"add rule inet vrouter prerouting {TUNNELLED.format('6635, 4789')}",
    ):
        nft.run(command, operation="tamper")
    assert observed_anew(nft).is_intact


@pytest.mark.parametrize(
    ("tampering", "left"),
    [
        ("delete element inet vrouter set-group-web-a4 {{ 5 . 10.8.0.1 }}", 3),
        ("flush set inet vrouter set-group-web-p4", 3),
        ("flush chain inet vrouter list-group-web-arriving", 0),
        ("insert rule inet vrouter list-group-web-arriving accept", 4),
        ("replace rule inet vrouter list-group-web-arriving handle {handle} accept", 3),
        ("delete rule inet vrouter list-group-web-arriving handle {handle}", 2),
        ("add chain inet vrouter list-mine", 3),
        ("add set inet vrouter set-mine-a4 {{ typeof ct zone . ip saddr; }}", 3),
    ],
)
def test_whatever_somebody_changes_in_what_policies_need_is_found_by_a_fresh_process(
    nft: LibNftables, tampering: str, left: int
) -> None:
    load(nft)
    loaded = observed_anew(nft)
    listed = run("nft -a list chain inet vrouter list-group-web-arriving")
    handle = next(line for line in listed.splitlines() if "comment" in line).rpartition(" ")[2]
    nft.run(tampering.format(handle=handle), operation="tamper")
    found = observed_anew(nft)
    assert found != loaded
    assert found.is_intact, "it is mended by a change"
    assert len(found.chains["list-group-web-arriving"]) == left


@pytest.mark.parametrize("how", ["loaded", "loaded in parts", "changed", "read"])
def test_a_rule_that_somebody_changes_under_our_comment_is_found_by_the_process_that_has_seen_it(
    nft: LibNftables, how: str
) -> None:
    """As by `nft list ruleset`, an editor and `nft -f`. Only a number in a long list of prefixes is another."""

    def chain(*prefixes: str) -> dict[str, tuple[ChainRule, ...]]:
        text = f"ip saddr {{ {', '.join(prefixes)} }} th dport 53 counter meta mark set 1 return"
        return {"list-group-web-arriving": (ChainRule(text, "web"),)}

    filters = FilterTables(nft, trunk="eth1")
    loaded, prefixes = (
        members(6000 if how == "loaded in parts" else 3),
        tuple(f"10.{each >> 8}.{each & 255}.0/24" for each in range(0, 6000, 2)),
    )
    before = rules(3) if how == "changed" else chain(*prefixes)
    filters.apply(ReplaceFilters(subject="filters", elements=policy.merge_elements(loaded), chains=before))
    if how == "changed":
        filters.apply(ChangeElements(subject="filters", want={}, have={}, chains=chain(*prefixes)))
    if how == "read":
        filters = FilterTables(nft, trunk="eth1")
    (rule,) = chain(*prefixes)["list-group-web-arriving"]
    assert filters.observe().chains == {"list-group-web-arriving": (rule.digest,)}

    (other,) = chain(*prefixes[:-1], "10.99.0.0/24")["list-group-web-arriving"]
    nft.run(
        "flush chain inet vrouter list-group-web-arriving\n"
        f'add rule inet vrouter list-group-web-arriving {other.text} comment "{rule.digest}"',
        operation="tamper",
    )
    for _ in range(2):
        assert filters.read().chains == {"list-group-web-arriving": ("",)}
    filters.apply(ChangeElements(subject="filters", want={}, have={}, chains=chain(*prefixes[::-1])))
    (rule,) = chain(*prefixes[::-1])["list-group-web-arriving"]
    for observed in (filters.observe(), filters.read()):
        assert observed.chains == {"list-group-web-arriving": (rule.digest,)}


def test_what_others_do_to_the_rule_set_is_noticed_and_what_we_do_is_not(rig: Rig) -> None:
    noticed: list[int] = []
    filters = FilterTables(rig.nft, trunk="eth1")
    watch = FilterWatch(filters, generation=rig.nft.kernel.generation, on_change=lambda: noticed.append(1))
    watch.look()
    filters.apply(ReplaceFilters(subject="filters", elements=policy.merge_elements(members(3)), chains=rules(3)))
    watch.look()
    assert noticed == []
    run("nft flush ruleset")
    watch.look()
    assert noticed == [1]
    assert not filters.observe().is_intact
    watch.look()
    assert noticed == [1], "a pass has seen it"


def test_packets_are_counted_by_rule_by_vif_and_by_reason(rig: Rig) -> None:
    layer = PolicyLayer(name="groups", lists=(LISTED,), passes=False)
    rule = PolicyRule(name="web", passes=True, services=(Service(protocol=17, dst_ports=(53, 53)),))
    chain = chains.list_rules([rule], {})
    rig.load({B.number: GuestPolicy(arriving=(layer,))}, {chains.list_chain(LISTED): chain}, {})
    filters = FilterTables(rig.nft, trunk="eth1")
    sent = [
        Packet(zone=5, src=A.addresses[0], dst=B.addresses[0], protocol=17, src_port=1000 + each, dst_port=port)
        for each, port in enumerate((53, 53, 54))
    ]
    loaded = filters.read().chains
    assert rig.passed(sent) == [True, True, False]
    assert filters.read().chains == loaded, "what is counted is nobody's change"
    hits, packets = filters.read_counters()
    assert hits[chain[0].digest] == 2
    assert packets[policy.LEAVING][A.vif] == 3
    assert packets[policy.ARRIVING][B.vif] == 3
    assert filters.read().drops["denied"] == 1
    assert filters.observe().drops["denied"] == 1


def test_the_host_forwards_nothing_between_its_own_networks_and_nothing_to_guests(rig: Rig) -> None:
    """Forwarding is on for the guests' sake, on every NIC."""

    def sent(port: int) -> list[Packet]:
        ends = [(ROUTER, ADMIN), (ADMIN, ROUTER), (ROUTER, B), (B, ROUTER), (ADMIN, B), (B, ADMIN)]
        return [
            Packet(zone=0, src=src.addresses[0], dst=dst.addresses[0], protocol=17, src_port=port, dst_port=53)
            for src, dst in ends
        ]

    assert rig.passed(sent(1000)) == [True, True, False, False, False, False], "not without an overlay"
    rig.forget()
    rig.load({}, {}, {policy.UNDERLAY: frozenset({(ROUTER.vif,)})})
    assert rig.passed(sent(1001)) == [False, False, False, False, False, False]
    assert FilterTables(rig.nft, trunk="eth1").read().drops["not_of_guests"] == 2


def solicitations(number: int) -> list[bytes]:
    """Neighbour solicitations, each from another address of the link."""
    router = ip_address("fe80::1").packed
    head = struct.pack("!IHBB", 6 << 28, 24, 58, 255)
    message = struct.pack("!BBHI", 135, 0, 0, 0) + router
    return [head + ip_address(f"fe80::9:{index:x}").packed + router + message for index in range(number)]


def arp_requests(guest: RigGuest, number: int) -> list[bytes]:
    """ARP requests, each from another address."""
    head, mac = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1), bytes.fromhex(guest.mac.replace(":", ""))
    senders = [ip_address(f"10.9.{index >> 8}.{index & 255}").packed for index in range(number)]
    return [head + mac + sender + bytes(6) + ip_address("10.1.1.1").packed for sender in senders]


def test_a_guest_that_asks_without_end_fills_no_table_of_neighbours_and_takes_nothing_from_others(rig: Rig) -> None:
    def dropped() -> list[int]:
        drops = FilterTables(rig.nft, trunk="eth1").read().drops
        return [drops["solicited"], drops["arp_asked"]]

    rig.send(A, 0x86DD, solicitations(1200))
    rig.send(A, 0x0806, arp_requests(A, 1200))
    of_one = dropped()
    assert all(0 < number <= 1200 - 500 for number in of_one), of_one
    rig.send(B, 0x86DD, solicitations(500))
    rig.send(B, 0x0806, arp_requests(B, 500))
    assert dropped() == of_one


def test_what_packets_put_into_the_tables_is_nobodys_change(rig: Rig) -> None:
    filters = FilterTables(rig.nft, trunk="eth1")
    filters.apply(ReplaceFilters(subject="filters", elements=policy.merge_elements(members(3)), chains=rules(3)))
    left_at = filters.left_at
    rig.send(A, 0x86DD, solicitations(1), is_awaited=False)
    rig.send(A, 0x0806, arp_requests(A, 1), is_awaited=False)
    wait_until(lambda: A.vif in run("nft list set inet vrouter soliciting"), what="the kernel has counted one")
    assert filters.read().is_intact
    assert filters.left_at == left_at


def udp(version: int) -> Packet:
    src, dst = A.addresses[version], B.addresses[version]
    return Packet(zone=5, src=src, dst=dst, protocol=17, src_port=1000, dst_port=2000)


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_fragments_of_two_networks_never_become_one_packet(rig: Rig, version: int) -> None:
    """Networks may have the same addresses, and identifications can be guessed."""
    assert not rig.passed_in_pieces(udp(version), first=OTHER, last=A)
    assert not rig.passed_in_pieces(udp(version), first=A, last=OTHER)
    assert rig.passed_in_pieces(udp(version), first=A, last=A)


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_a_spoofed_fragment_becomes_no_part_of_a_packet(rig: Rig, version: int) -> None:
    set_name, address = policy.BIND6 if version else policy.BIND4, A.addresses[version]
    secured = f'delete element inet vrouter unsecured {{ "{A.vif}", "{B.vif}" }}\n'
    bound = f'add element inet vrouter {set_name} {{ "{A.vif}" . {A.mac} . {address} }}\n'
    rig.load({}, {}, {}, also=secured + bound)
    assert not rig.passed_in_pieces(udp(version), first=B, last=A)
    assert not rig.passed_in_pieces(udp(version), first=A, last=B)
    assert rig.passed_in_pieces(udp(version), first=A, last=A)


def test_whether_there_are_flowtables_is_asked_without_any_change(rig: Rig) -> None:
    before = rig.nft.kernel.generation()
    rig.nft.has_flowtables()
    assert rig.nft.kernel.generation() == before
    assert "trial" not in run("nft list tables")
    rig.nft.run("add table inet another", operation="add")
    assert "another" in run("nft list tables"), "what is done afterwards is done"
