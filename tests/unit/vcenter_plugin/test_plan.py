from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.unit.vcenter_plugin.cases import TENANT, mark_of, network, portgroup
from tf_reconcile.guard import RemovalLimit, fingerprint, refusal
from vcenter_plugin.desired import as_marked, wanted_portgroups
from vcenter_plugin.model import (
    Absence,
    CreatePortgroup,
    DestroyPortgroup,
    Network,
    ObservedSwitch,
    PortgroupSettings,
    ReconfigurePortgroup,
    VnUuid,
    WantedPortgroup,
    describe,
)
from vcenter_plugin.names import name_key
from vcenter_plugin.plan import (
    Leaving,
    choose_candidates,
    confirm_candidates,
    find_orphans,
    plan_portgroups,
    without_answer,
)

BLUE, RED, GREEN = network("blue"), network("red"), network("green")
NO_LIMIT = RemovalLimit(most=1000, share=1.0)


def want(*networks: Network) -> Mapping[VnUuid, WantedPortgroup]:
    return wanted_portgroups(networks, tenant=TENANT)


def test_a_new_network_gets_a_portgroup_that_is_blocked_and_lets_managers_override_vlan_and_block() -> None:
    plan = plan_portgroups(want=want(BLUE), have=ObservedSwitch())
    (action,) = plan.actions
    assert isinstance(action, CreatePortgroup)
    assert action.wanted.mark == mark_of(BLUE)
    assert action.wanted.spec.name == "blue"
    assert action.wanted.spec.settings == PortgroupSettings(
        binding="earlyBinding",
        is_auto_expanding=True,
        vlan_id=0,
        is_blocked=True,
        allows_promiscuous=False,
        allows_mac_changes=False,
        allows_forged_transmits=False,
        is_vlan_override_allowed=True,
        is_block_override_allowed=True,
        is_reset_at_disconnect=True,
    )


def test_what_is_right_is_not_touched() -> None:
    plan = plan_portgroups(want=want(BLUE), have=ObservedSwitch(portgroups=(portgroup(BLUE),)))
    assert plan.is_empty
    assert plan.held == ()


@pytest.mark.parametrize(
    "drifted",
    [
        PortgroupSettings(is_blocked=False),
        PortgroupSettings(vlan_id=700),
        PortgroupSettings(vlan_id=None),
        PortgroupSettings(allows_forged_transmits=True),
        PortgroupSettings(is_vlan_override_allowed=False),
        PortgroupSettings(is_reset_at_disconnect=False),
        PortgroupSettings(binding="ephemeral"),
    ],
)
def test_each_drifted_setting_is_put_back(drifted: PortgroupSettings) -> None:
    plan = plan_portgroups(want=want(BLUE), have=ObservedSwitch(portgroups=(portgroup(BLUE, settings=drifted),)))
    (action,) = plan.actions
    assert isinstance(action, ReconfigurePortgroup)
    assert action.spec.settings == PortgroupSettings()


def test_a_new_display_name_renames_the_portgroup() -> None:
    azure = replace(BLUE, display_name="azure")
    plan = plan_portgroups(want=want(azure), have=ObservedSwitch(portgroups=(portgroup(BLUE),)))
    assert [describe(action) for action in plan.actions] == [
        f"reconfigure portgroup dvportgroup-1 of virtual-network default-domain:vCenter:blue ({BLUE.vn_uuid}): "
        "name: 'blue' -> 'azure'"
    ]


def test_a_change_of_case_is_a_rename_of_its_own_name() -> None:
    plan = plan_portgroups(want=want(BLUE), have=ObservedSwitch(portgroups=(portgroup(BLUE, name="BLUE"),)))
    assert [type(action) for action in plan.actions] == [ReconfigurePortgroup]


def test_a_name_that_somebody_else_has_is_held_whatever_its_case() -> None:
    have = ObservedSwitch(foreign_names={name_key("Blue"): "Network network-7, which is not ours"})
    plan = plan_portgroups(want=want(BLUE, RED), have=have)
    assert [action.wanted.spec.name for action in plan.actions if isinstance(action, CreatePortgroup)] == ["red"]
    (held,) = plan.held
    assert "blue" in held.subject
    assert held.reason == "the name 'blue' is taken by Network network-7, which is not ours"


def test_a_rename_onto_a_foreign_name_is_held_and_the_settings_are_still_put_right() -> None:
    seen = portgroup(BLUE, name="old", settings=PortgroupSettings(is_blocked=False))
    have = ObservedSwitch(portgroups=(seen,), foreign_names={name_key("blue"): "somebody"})
    plan = plan_portgroups(want=want(BLUE), have=have)
    (action,) = plan.actions
    assert isinstance(action, ReconfigurePortgroup)
    assert action.spec.name == "old"
    assert action.spec.settings.is_blocked
    assert len(plan.held) == 1


def test_of_two_networks_with_one_name_the_one_that_has_it_keeps_it() -> None:
    twin = network("red", display_name="Blue")
    plan = plan_portgroups(want=want(BLUE, twin), have=ObservedSwitch(portgroups=(portgroup(BLUE),)))
    assert plan.is_empty
    assert [held.subject for held in plan.held] == [f"virtual-network default-domain:vCenter:red ({twin.vn_uuid})"]


def test_of_two_new_networks_with_one_name_both_are_held() -> None:
    plan = plan_portgroups(want=want(BLUE, network("red", display_name="blue")), have=ObservedSwitch())
    assert plan.is_empty
    assert len(plan.held) == 2


def test_a_name_that_another_of_ours_still_has_is_waited_for() -> None:
    red_becomes_blue = replace(RED, display_name="blue")
    blue_becomes_green = replace(BLUE, display_name="green")
    have = ObservedSwitch(portgroups=(portgroup(BLUE, key=1), portgroup(RED, key=2)))
    plan = plan_portgroups(want=want(blue_becomes_green, red_becomes_blue), have=have)
    assert [action.spec.name for action in plan.actions if isinstance(action, ReconfigurePortgroup)] == ["green"]
    assert [held.reason for held in plan.held] == [
        f"the name 'blue' is still that of the portgroup of virtual network {BLUE.vn_uuid}"
    ]


def test_two_networks_that_swap_their_names_are_taken_apart_by_a_name_for_the_time_being() -> None:
    swapped = want(replace(BLUE, display_name="red"), replace(RED, display_name="blue"))
    have = ObservedSwitch(portgroups=(portgroup(BLUE, key=1), portgroup(RED, key=2)))
    plan = plan_portgroups(want=swapped, have=have)
    (action,) = plan.actions
    assert isinstance(action, ReconfigurePortgroup)
    first = min(BLUE.vn_uuid, RED.vn_uuid)
    assert action.mark.vn_uuid == first
    assert action.spec.name.endswith(f"~{first[:8]}")


def test_two_portgroups_with_one_mark_are_both_held_and_no_third_is_made() -> None:
    have = ObservedSwitch(portgroups=(portgroup(BLUE, key=1), portgroup(BLUE, key=2, name="blue-restored")))
    plan = plan_portgroups(want=want(BLUE), have=have)
    assert plan.is_empty
    assert [held.reason for held in plan.held] == ["another portgroup carries the same mark"] * 2
    assert find_orphans((), have) == ()


def test_destroys_come_before_what_may_need_their_names() -> None:
    successor = network("blue-2", display_name="blue")
    have = ObservedSwitch(portgroups=(portgroup(BLUE),))
    plan = plan_portgroups(want=want(successor), have=have, leaving=Leaving(removable=have.portgroups))
    assert [type(action) for action in plan.actions] == [DestroyPortgroup, CreatePortgroup]


def test_the_name_of_a_portgroup_that_cannot_go_yet_is_not_given_away() -> None:
    successor = network("blue-2", display_name="blue")
    plan = plan_portgroups(want=want(successor), have=ObservedSwitch(portgroups=(portgroup(BLUE),)))
    assert plan.is_empty
    assert "which is held" in plan.held[0].reason


def test_a_portgroup_with_connected_ports_stays() -> None:
    orphan = portgroup(BLUE)
    leaving = choose_candidates([orphan], connected_ports={orphan.key: 3}, total=1, limit=NO_LIMIT)
    assert leaving.removable == ()
    assert [held.reason for held in leaving.held] == ["its virtual network is gone, 3 ports are still connected"]


@pytest.mark.parametrize(
    ("absence", "goes"), [(Absence.GONE, True), (Absence.EXISTS, False), (Absence.TENANT_MISSING, False)]
)
def test_a_portgroup_goes_only_when_its_network_is_gone_when_asked_for(absence: Absence, goes: bool) -> None:
    orphan = portgroup(BLUE)
    leaving = confirm_candidates(Leaving(removable=(orphan,)), {BLUE.vn_uuid: absence})
    assert leaving.removable == ((orphan,) if goes else ())
    assert [held.reason for held in leaving.held] == ([] if goes else [absence.value])


def test_without_an_answer_about_a_network_its_portgroup_stays() -> None:
    leaving = without_answer(Leaving(removable=(portgroup(BLUE),)), "down")
    assert leaving.removable == ()
    assert [held.reason for held in leaving.held] == ["down"]


def test_while_tf_does_not_answer_settings_are_put_right_and_names_and_numbers_stay() -> None:
    have = ObservedSwitch(
        portgroups=(
            portgroup(BLUE, key=1, name="renamed by hand"),
            portgroup(RED, key=2, settings=PortgroupSettings(is_blocked=False)),
        )
    )
    plan = plan_portgroups(want=as_marked(have), have=have)
    (action,) = plan.actions
    assert isinstance(action, ReconfigurePortgroup)
    assert (action.key, action.spec.name) == ("dvportgroup-2", "red")


@pytest.mark.parametrize(
    ("removed", "total", "most", "share", "is_allowed"),
    [
        (1, 1, 20, 0.5, True),
        (3, 3, 20, 0.5, True),
        (4, 4, 20, 0.5, False),
        (4, 7, 20, 0.5, False),
        (4, 8, 20, 0.5, True),
        (20, 100, 20, 0.5, True),
        (21, 100, 20, 0.5, False),
        (1, 100, 0, 0.5, False),
        (0, 0, 0, 0.0, True),
    ],
)
def test_more_than_the_number_or_the_share_at_once_is_refused(
    removed: int, total: int, most: int, share: float, is_allowed: bool
) -> None:
    ids = [f"id-{number}" for number in range(removed)]
    assert (refusal(ids, total=total, limit=RemovalLimit(most=most, share=share)) is None) == is_allowed


def test_a_confirmation_allows_exactly_the_set_that_was_shown() -> None:
    limit = RemovalLimit(most=1, share=1.0, confirmed=fingerprint(["a", "b"]))
    assert refusal(["b", "a"], total=9, limit=limit) is None
    assert refusal(["a", "c"], total=9, limit=limit) is not None


def test_a_mass_removal_is_held_for_every_portgroup_with_what_confirms_it() -> None:
    orphans = [portgroup(BLUE, key=1), portgroup(RED, key=2)]
    leaving = choose_candidates(orphans, connected_ports={}, total=2, limit=RemovalLimit(most=1, share=1.0))
    assert leaving.removable == ()
    assert len(leaving.held) == 2
    assert fingerprint([BLUE.vn_uuid, RED.vn_uuid]) in leaving.held[0].reason
