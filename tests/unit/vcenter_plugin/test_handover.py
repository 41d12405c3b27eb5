from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.vcenter_plugin.cases import TENANT, mark_of, network
from vcenter_plugin.desired import wanted_portgroups
from vcenter_plugin.handover import Candidate, ConnectedPort, choose_adoptions, ports_to_pin, ports_to_reset
from vcenter_plugin.model import PortgroupKey

BLUE, RED = network("blue"), network("red")
WANT = wanted_portgroups([BLUE, RED], tenant=TENANT)
OLD_BLUE = Candidate(key=PortgroupKey("dvportgroup-1"), name="blue", binding="earlyBinding", vlan_id=100)


def test_a_portgroup_is_adopted_by_the_network_that_is_called_like_it_in_any_case() -> None:
    for name in ("blue", "BLUE"):
        found = choose_adoptions([replace(OLD_BLUE, name=name)], want=WANT, taken=())
        assert [one.wanted.mark for one in found.adoptions] == [mark_of(BLUE)]
        assert found.held == ()


def test_a_portgroup_that_no_network_is_called_like_is_nobodys_business_unless_it_was_named() -> None:
    office = replace(OLD_BLUE, name="office")
    assert choose_adoptions([office], want=WANT, taken=()).held == ()
    found = choose_adoptions([office], want=WANT, taken=(), names=["office", "nowhere"])
    assert found.adoptions == ()
    assert [one.reason for one in found.held] == [
        "no virtual network without a portgroup has this name",
        "there is none on this switch that is not ours already",
    ]


def test_a_network_that_has_a_portgroup_adopts_none() -> None:
    found = choose_adoptions([OLD_BLUE], want=WANT, taken={BLUE.vn_uuid})
    assert (found.adoptions, found.held) == ((), ())


def test_only_the_named_portgroups_are_adopted() -> None:
    both = [OLD_BLUE, replace(OLD_BLUE, key=PortgroupKey("dvportgroup-2"), name="red")]
    found = choose_adoptions(both, want=WANT, taken=(), names=["Red"])
    assert [one.candidate.name for one in found.adoptions] == ["red"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"binding": "ephemeral"}, "its ports are bound ephemeral, and only static ones last"),
        ({"vlan_id": None}, "it carries a trunk or a private VLAN"),
        ({"mark": mark_of(BLUE)}, "its removal is not finished"),
    ],
)
def test_what_cannot_be_taken_over_as_it_is_is_held(change: dict[str, object], reason: str) -> None:
    found = choose_adoptions([replace(OLD_BLUE, **change)], want=WANT, taken=())  # type: ignore[arg-type]
    assert found.adoptions == ()
    assert found.held[0].reason.startswith(reason)


def test_an_adoption_that_was_interrupted_is_taken_up_again() -> None:
    halfway = replace(OLD_BLUE, is_adopting=True, mark=mark_of(BLUE))
    assert len(choose_adoptions([halfway], want=WANT, taken=()).adoptions) == 1


def test_a_name_that_two_networks_want_is_held() -> None:
    twin = network("twin", display_name="Blue")
    found = choose_adoptions([OLD_BLUE], want=wanted_portgroups([BLUE, twin], tenant=TENANT), taken=())
    assert found.adoptions == ()
    assert "several virtual networks" in found.held[0].reason


PORT = ConnectedPort(
    dvport_key="7", config_version="1", vlan_id=100, is_vlan_inherited=True, is_blocked=False, is_block_inherited=True
)


@pytest.mark.parametrize(
    ("port", "is_pinned", "is_reset"),
    [
        (PORT, True, False),
        (replace(PORT, vlan_id=0), True, False),
        (replace(PORT, is_block_inherited=False), True, True),
        (replace(PORT, is_block_inherited=False, vlan_id=0), False, True),
        (replace(PORT, is_block_inherited=False, is_vlan_inherited=False), False, True),
        (replace(PORT, is_vlan_inherited=False), True, True),
    ],
)
def test_a_port_is_pinned_for_what_it_inherits_and_reset_for_what_it_does_not(
    port: ConnectedPort, is_pinned: bool, is_reset: bool
) -> None:
    assert bool(ports_to_pin([port])) == is_pinned
    assert bool(ports_to_reset([port])) == is_reset
