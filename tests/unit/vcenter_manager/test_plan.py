"""What a plan does and does not do, case by case. The world behind them is in tests/fakes/manager_world.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from tests.fakes.manager_world import FOREIGN, OTHER_SWITCH, PVLAN, World, vm_uuid_of, vn_uuid_of
from tf_reconcile.guard import RemovalLimit
from vcenter_manager.actions import (
    Action,
    AddAgentPort,
    AnyAction,
    BlockDvport,
    CreateInterface,
    DeleteInterface,
    EnableAgentPort,
    OpenDvport,
    ReleaseDvport,
    RemoveAgentPort,
    ReplaceAgentPort,
    UpdateInterface,
    UpdateVm,
    describe,
)
from vcenter_manager.desired import vmi_uuid_of
from vcenter_manager.model import (
    DeviceKey,
    Family,
    HostMoref,
    InstanceIpUuid,
    Interface,
    MacAddress,
    Network,
    Referrer,
    Snapshot,
    Source,
    TfVm,
    Vlan,
    VmiUuid,
)
from vcenter_manager.plan import Decision, decide
from vcenter_manager.rules import NEEDS, ORDER, order_of

A, B = "host-a", "host-b"
NIC = DeviceKey(4000)


def kinds(decision: Decision) -> list[str]:
    return [type(action).__name__ for action in decision.plan.actions]


def reasons(decision: Decision) -> dict[str, str]:
    return {held.subject: held.reason for held in decision.plan.held}


def settled(*networks: str, **options: bool) -> World:
    """A world with one running guest `web` on host A that has everything."""
    world = World(**options)  # type: ignore[arg-type]
    world.create("web", A, *(networks or ("blue",)))
    world.run_until_quiet()
    return world


def test_the_chain_of_an_attachment_is_one_link_per_pass() -> None:
    world = World()
    world.create("web", A, "blue")
    assert kinds(world.pass_of(A)) == ["CreateVm", "CreateInterface", "CreateInstanceIp"]
    assert kinds(world.pass_of(A)) == ["AddAgentPort"]
    assert kinds(world.pass_of(A)) == []  # the agent is not there yet
    world.agents[HostMoref(A)].settle()
    assert kinds(world.pass_of(A)) == ["OpenDvport"]
    assert kinds(world.pass_of(A)) == []


def test_a_port_that_waits_for_the_agent_is_held_with_the_agents_reason() -> None:
    world = World()
    world.create("web", A, "blue")
    world.pass_of(A)
    world.pass_of(A)
    vmi = vmi_uuid_of(vm_uuid_of("web"), NIC)
    ports = world.agents[HostMoref(A)].ports
    ports[vmi] = replace(ports[vmi], reason="no filters yet")
    assert reasons(world.decide(A)) == {"web NIC 4000": "vRouter agent: no filters yet"}


def test_tfs_own_agent_is_told_to_enable_before_the_port_is_opened() -> None:
    world = World(starts_disabled=True)
    world.create("web", A, "blue")
    seen = [kinds(world.pass_of(A)) for _ in range(3)]
    assert seen[1:] == [["AddAgentPort"], ["EnableAgentPort"]]


def test_a_released_port_is_seen_closed_before_its_vif_goes() -> None:
    world = settled()
    world.power("web", on=False)
    assert kinds(world.pass_of(A)) == ["ReleaseDvport"]
    assert kinds(world.pass_of(A)) == ["ReplaceAgentPort"]
    assert kinds(world.decide(A)) == []


def test_an_open_port_without_an_id_is_closed_at_once_and_gets_its_id_in_the_same_write() -> None:
    world = settled()
    world.port_of("web").vlan = None
    decision = world.decide(A)
    block = decision.plan.actions[0]
    assert isinstance(block, BlockDvport)
    assert describe(block) == f"dvPort {block.dvport.key} of web NIC 4000: VLAN {block.vlan}, blocked"


@pytest.mark.parametrize(
    "vlan", [PVLAN, Vlan(3), Vlan(99)], ids=["a PVLAN id", "a foreign access VLAN", "out of range"]
)
def test_an_open_port_with_a_forbidden_id_is_closed_and_given_another(vlan: Vlan) -> None:
    world = settled()
    world.port_of("web").vlan = vlan
    action = world.decide(A).plan.actions[0]
    assert isinstance(action, BlockDvport)
    assert action.vlan not in {PVLAN, 3, 99}
    world.run_until_quiet()
    world.assert_alive()


def test_of_two_guests_with_one_id_the_one_that_is_served_keeps_it_and_the_other_is_closed_at_once() -> None:
    world = settled()
    world.create("moved", A, "blue")
    moved = world.port_of("moved")
    moved.vlan, moved.blocked = world.port_of("web").vlan, False
    blocked = [action for action in world.decide(A).plan.actions if isinstance(action, BlockDvport)]
    assert [action.dvport.key for action in blocked] == [moved.key]
    world.run_until_quiet()
    world.assert_alive()


def test_nothing_is_written_to_a_port_that_another_host_serves() -> None:
    world = settled()
    port = world.port_of("web")
    port.proxy_host, port.vlan, port.blocked = HostMoref(B), None, None
    decision = world.decide(A)
    assert kinds(decision) == ["ReplaceAgentPort"]
    world.pass_of(A)
    assert reasons(world.decide(A)) == {"web NIC 4000": "the dvPort is served by another host"}


def test_a_host_that_vcenter_added_anew_under_another_id_costs_no_vif() -> None:
    world = settled()
    world.port_of("web").proxy_host = HostMoref("host-a-added-again")
    decision = world.decide(A)
    assert kinds(decision) == []
    assert "has joined the dvSwitch" in reasons(decision)["web NIC 4000"]


def test_a_nic_without_a_mac_waits_for_one_and_nothing_is_made_for_it() -> None:
    world = World()
    world.create("web", A, "blue")
    nics = world.machines[vm_uuid_of("web")].nics
    nics[NIC] = replace(nics[NIC], mac=MacAddress(""))
    decision = world.pass_of(A)
    assert kinds(decision) == ["CreateVm"]
    assert reasons(decision)["web NIC 4000"] == "the NIC has no MAC address yet"
    nics[NIC] = replace(nics[NIC], mac=MacAddress("00:50:56:80:00:01"))
    world.run_until_quiet()
    world.assert_alive()


def test_a_port_that_no_host_serves_yet_is_held() -> None:
    world = World()
    world.create("web", A, "blue")
    world.port_of("web").proxy_host = None
    world.pass_of(A)
    assert reasons(world.decide(A)) == {"web NIC 4000": "no host serves the dvPort yet"}


def test_a_port_with_another_connection_cookie_is_not_written() -> None:
    world = World()
    world.create("web", A, "blue")
    world.port_of("web").cookie = 777
    world.pass_of(A)
    assert reasons(world.decide(A)) == {"web NIC 4000": "the dvPort belongs to another NIC by now"}


def test_a_guest_that_left_loses_its_vif_and_keeps_its_tf_objects() -> None:
    world = settled()
    world.migrate("web", B)
    assert kinds(world.decide(A)) == ["RemoveAgentPort"]


def test_a_guest_whose_identity_cannot_be_read_keeps_its_vif() -> None:
    world = settled()
    snapshot = replace(world.snapshot(A), guests={}, unreadable_guests=("web",))
    assert kinds(decide(snapshot, world.policy)) == []


def test_a_vm_that_cannot_be_read_does_not_keep_the_vif_of_a_guest_that_has_certainly_left() -> None:
    world = settled()
    away = replace(
        world.snapshot(A), guests={}, unreadable_guests=("other",), departed_guests=frozenset({vm_uuid_of("web")})
    )
    assert kinds(decide(away, world.policy)) == ["RemoveAgentPort"]


def test_a_removed_nic_loses_vif_then_addresses_and_interface_then_the_virtual_machine() -> None:
    world = settled()
    world.detach("web")
    seen = [kinds(world.pass_of(A)) for _ in range(4)]
    assert seen == [["RemoveAgentPort"], ["DeleteInstanceIp", "DeleteInterface"], ["DeleteVm"], []]


@pytest.mark.parametrize("resource", ["floating-ip", "alias-ip"])
def test_an_address_that_a_user_bound_is_let_go_once_tf_refuses_to_delete_its_interface(resource: str) -> None:
    world = settled()
    vmi = vmi_uuid_of(vm_uuid_of("web"), NIC)
    world.referrers[vmi] = {Referrer(resource=resource, uuid="bound")}
    world.detach("web")
    world.pass_of(A)
    assert kinds(world.pass_of(A)) == ["DeleteInstanceIp", "DeleteInterface"]  # TF refuses the second
    assert kinds(world.pass_of(A)) == ["DetachReferrer", "DeleteInterface"]
    world.run_until_quiet()
    assert vmi not in world.interfaces
    assert vm_uuid_of("web") not in world.vms


def test_an_instance_ip_that_a_user_bound_is_let_go_with_its_interface() -> None:
    world = settled()
    vmi = vmi_uuid_of(vm_uuid_of("web"), NIC)
    world.add_instance_ip(vmi, InstanceIpUuid("users"), is_ours=False)
    world.detach("web")
    world.pass_of(A)
    assert kinds(world.pass_of(A)) == ["DetachReferrer", "DeleteInstanceIp", "DeleteInterface"]
    world.run_until_quiet()
    assert vmi not in world.interfaces


def test_an_interface_that_something_else_refers_to_is_kept_with_that_reason() -> None:
    world = settled()
    vmi = vmi_uuid_of(vm_uuid_of("web"), NIC)
    world.referrers[vmi] = {Referrer(resource="bgp-as-a-service", uuid="session")}
    world.detach("web")
    world.run_until_quiet()
    (held,) = world.decide(A).plan.held
    assert held.reason == "bgp-as-a-service session of another creator refers to it"
    assert vmi in world.interfaces


def test_an_interface_that_a_foreign_instance_ip_refers_to_is_kept_with_that_reason() -> None:
    world = settled()
    vmi = vmi_uuid_of(vm_uuid_of("web"), NIC)
    world.add_instance_ip(vmi, InstanceIpUuid("service-chain"), is_ours=False, is_service=True)
    world.detach("web")
    world.pass_of(A)
    decision = world.decide(A)
    assert kinds(decision) == []
    assert "instance-ip service-chain of another creator" in next(iter(reasons(decision).values()))


def test_a_change_of_network_deletes_the_interface_and_makes_it_anew() -> None:
    world = settled()
    world.attach("web", "red", NIC)
    seen = [kinds(world.pass_of(A)) for _ in range(3)]
    assert seen == [
        ["ReplaceAgentPort"],
        ["DeleteInstanceIp", "DeleteInterface"],
        ["CreateInterface", "CreateInstanceIp"],
    ]


def test_a_changed_mac_updates_the_interface_and_replaces_the_vif() -> None:
    world = settled()
    nics = world.machines[vm_uuid_of("web")].nics
    nics[NIC] = replace(nics[NIC], mac=MacAddress("00:50:56:99:99:99"))
    actions = world.decide(A).plan.actions
    assert [type(action) for action in actions] == [ReplaceAgentPort, UpdateInterface]


def test_a_renamed_guest_is_renamed_in_tf_and_its_vif_is_left_alone() -> None:
    world = settled()
    world.machines[vm_uuid_of("web")].name = "www"
    actions = world.decide(A).plan.actions
    assert [type(action) for action in actions] == [UpdateVm]


def test_a_template_and_a_guest_on_another_switch_are_none_of_our_business() -> None:
    world = World()
    world.create("template", A, "blue")
    world.create("other", A, "blue")
    snapshot = world.snapshot(A)
    guests = dict(snapshot.guests)
    template, other = vm_uuid_of("template"), vm_uuid_of("other")
    guests[template] = replace(guests[template], is_template=True)
    nic = guests[other].nics[0]
    assert nic.dvport is not None
    elsewhere = replace(nic, dvport=replace(nic.dvport, switch_uuid=OTHER_SWITCH))
    guests[other] = replace(guests[other], nics=(elsewhere,))
    assert kinds(decide(replace(snapshot, guests=guests), world.policy)) == []


def test_a_guest_on_a_foreign_portgroup_is_never_written_though_its_port_has_an_override() -> None:
    world = World()
    world.create("legacy", A, "office")
    port = world.port_of("legacy")
    port.vlan, port.blocked = Vlan(77), False
    assert world.port_of("legacy").portgroup == FOREIGN
    assert kinds(world.decide(A)) == []


def test_the_id_of_a_foreign_guests_override_is_not_given_out() -> None:
    world = World(ranges=((6, 7),))
    world.create("legacy", A, "office")
    world.port_of("legacy").vlan = Vlan(6)
    world.create("web", A, "blue")
    world.run_until_quiet()
    assert world.port_of("web").vlan == 7


def test_a_nic_for_which_no_id_is_left_is_held_and_its_neighbours_are_served() -> None:
    world = World(ranges=((1, 1),))
    world.create("first", A, "blue")
    world.run_until_quiet()
    world.create("second", A, "blue")
    world.run_until_quiet()
    assert world.port_of("first").vlan == 1
    assert world.port_of("second").vlan is None
    assert "no free VLAN id" in reasons(world.decide(A))["second NIC 4000"]


def test_an_interface_of_an_older_manager_is_adopted_by_its_mac() -> None:
    world = World()
    vm = world.create("web", A, "blue")
    mac = world.machines[vm].nics[NIC].mac
    older = VmiUuid("99999999-9999-9999-9999-999999999999")
    world.vms[vm] = TfVm(display_name="web", vcenter_uuid=None, is_ours=True)
    world.interfaces[older] = (
        vm,
        Interface(
            vmi_uuid=older,
            fq_name=("default-domain", "vCenter", older),
            vn_uuid=vn_uuid_of("blue"),
            mac=mac,
            project_uuid=None,
            is_ours=True,
            instance_ips=(),
        ),
    )
    decision = world.decide(A)
    assert kinds(decision) == ["UpdateVm", "CreateInstanceIp"]
    assert decision.nics[0].vmi_uuid == older


def test_an_interface_of_somebody_else_is_not_adopted() -> None:
    world = World()
    vm = world.create("web", A, "blue")
    theirs = VmiUuid("99999999-9999-9999-9999-999999999999")
    world.run_until_quiet()
    own = world.interfaces[vmi_uuid_of(vm, NIC)][1]
    world.interfaces[theirs] = (vm, replace(own, vmi_uuid=theirs, is_ours=False, instance_ips=()))
    assert kinds(world.decide(A)) == []
    world.detach("web")
    world.run_until_quiet()
    assert [*world.interfaces] == [theirs]


def with_network(change: Callable[[Network], Network]) -> Callable[[Snapshot], Snapshot]:
    def changed(snapshot: Snapshot) -> Snapshot:
        return replace(snapshot, networks={vn: change(network) for vn, network in snapshot.networks.items()})

    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda snapshot: replace(snapshot, networks={}), "its virtual network is not in TF"),
        (with_network(lambda network: replace(network, families=frozenset())), "its virtual network has no subnet"),
        (
            with_network(lambda network: replace(network, families=frozenset({Family.V4, Family.V6}))),
            "no address yet",
        ),
    ],
)
def test_a_nic_that_tf_cannot_serve_is_held_with_the_reason(
    change: Callable[[Snapshot], Snapshot], reason: str
) -> None:
    world = World()
    world.create("web", A, "blue")
    world.pass_of(A)
    decision = decide(change(world.snapshot(A)), world.policy)
    waiting = reasons(decision) | {a.subject: "no address yet" for a in decision.plan.actions}
    assert waiting["web NIC 4000"] == reason
    assert not any(isinstance(action, AddAgentPort | OpenDvport) for action in decision.plan.actions)


def test_many_removals_at_once_are_held_until_confirmed() -> None:
    world = World(ranges=((1, 200),))
    names = [f"g{number}" for number in range(30)]
    for name in names:
        world.create(name, A, "blue")
    world.run_until_quiet()
    for name in names:
        world.attach(name, "", NIC)
    world.pass_of(A)
    decision = world.decide(A)
    assert not any(isinstance(action, DeleteInterface) for action in decision.plan.actions)
    reason = reasons(decision)["interfaces in TF"]
    assert "would remove 30 of 30 at once" in reason
    shown = reason[-16:]
    for confirmed, number in ((shown, 30), ("0" * 16, 0)):
        policy = replace(world.policy, removals=RemovalLimit(most=20, share=0.5, confirmed=confirmed))
        done = decide(world.snapshot(A), policy).plan.actions
        assert sum(isinstance(action, DeleteInterface) for action in done) == number


def test_many_changes_of_network_at_once_are_no_removals() -> None:
    world = World(ranges=((1, 200),))
    names = [f"g{number}" for number in range(30)]
    for name in names:
        world.create(name, A, "blue")
    world.run_until_quiet()
    for name in names:
        world.attach(name, "red", NIC)
    world.run_until_quiet()
    world.assert_alive()
    assert {interface.vn_uuid for _, interface in world.interfaces.values()} == {vn_uuid_of("red")}


# What a missing source forbids


def test_every_kind_of_action_has_a_place_in_the_order_and_says_what_it_needs() -> None:
    assert {kind for kind, _ in ORDER} == set(NEEDS) == set(get_args(AnyAction))
    assert all(reason for _, reason in ORDER)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (ReleaseDvport, RemoveAgentPort),
        (BlockDvport, AddAgentPort),
        (ReplaceAgentPort, AddAgentPort),
        (RemoveAgentPort, DeleteInterface),
        (CreateInterface, AddAgentPort),
        (AddAgentPort, OpenDvport),
        (EnableAgentPort, OpenDvport),
    ],
)
def test_order_is_fail_closed(earlier: type[Action], later: type[Action]) -> None:
    places = [kind for kind, _ in ORDER]
    assert places.index(earlier) < places.index(later)


def busy_world() -> World:
    """A world in which every kind of work waits on host A."""
    world = World(ranges=((1, 40),))
    for name in ("stays", "stops", "goes", "unplugged", "changes", "shares"):
        world.create(name, A, "blue")
    world.run_until_quiet()
    world.power("stops", on=False)
    world.delete("goes")
    world.detach("unplugged")
    world.attach("changes", "red", NIC)
    world.port_of("shares").vlan = world.port_of("stays").vlan
    world.create("comes", A, "blue")
    world.create("arrives", A, "blue")
    vm = vm_uuid_of("arrives")
    world.vms[vm] = TfVm(display_name="arrives", vcenter_uuid=world.policy.vcenter_uuid, is_ours=True)
    return world


@pytest.mark.parametrize("source", [*Source])
def test_without_a_source_only_what_does_not_need_it_is_done(source: Source) -> None:
    world = busy_world()
    whole = world.decide(A).plan.actions
    for action in world.decide(A, missing=(source,)).plan.actions:
        assert source not in NEEDS[type(action)]
    needless = {type(action) for action in whole if source not in NEEDS[type(action)]}
    done = {type(action) for action in world.decide(A, missing=(source,)).plan.actions}
    if source is Source.DVPORTS:
        assert done == needless
    assert not done - needless


@pytest.mark.parametrize("missing", [(Source.NETWORKS, Source.OBJECTS), (Source.OBJECTS,)])
def test_without_tf_nothing_is_removed_there_and_ports_are_still_closed(missing: tuple[Source, ...]) -> None:
    done = kinds(busy_world().decide(A, missing=missing))
    assert not [kind for kind in done if kind.startswith(("Delete", "Create", "Update"))]
    assert {"ReleaseDvport", "BlockDvport", "RemoveAgentPort"} <= set(done)


def test_without_vcenter_no_port_is_written_and_vifs_whose_guest_or_nic_left_still_go() -> None:
    world = busy_world()
    decision = world.decide(A, missing=(Source.PORTGROUPS, Source.DVPORTS))
    assert {type(action) for action in decision.plan.actions} == {RemoveAgentPort}
    assert {action.subject for action in decision.plan.actions} == {"goes", "unplugged"}


def test_without_the_esxi_nothing_at_all_is_done() -> None:
    assert kinds(busy_world().decide(A, missing=(Source.INVENTORY,))) == []


def test_without_the_agent_no_id_is_given_out_and_ports_are_still_closed() -> None:
    done = set(kinds(busy_world().decide(A, missing=(Source.AGENT,))))
    assert "ReleaseDvport" in done
    assert not done & {"OpenDvport", "BlockDvport", "AddAgentPort", "DeleteInterface"}


def test_a_plan_is_in_order() -> None:
    actions = busy_world().decide(A).plan.actions
    places = [order_of(action) for action in actions]
    assert places == sorted(places)
    assert len(set(places)) > 4


def test_stray_overrides_of_ports_that_nobody_uses_are_released() -> None:
    world = settled(resets_at_disconnect=False)
    world.delete("web")
    assert {"ReleaseDvport", "RemoveAgentPort"} == set(kinds(world.decide(A)))


def test_where_the_portgroup_would_leave_a_released_port_open_it_is_blocked_itself() -> None:
    world = settled()
    world.portgroups = {key: replace(each, is_blocked=False) for key, each in world.portgroups.items()}
    world.power("web", on=False)
    release = world.decide(A).plan.actions[0]
    assert isinstance(release, ReleaseDvport)
    assert release.is_default_open
    world.run_until_quiet()
    assert world.port_of("web").blocked is True
