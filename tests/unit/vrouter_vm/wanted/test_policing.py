from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.vrouter_host import make_network
from vrouter_vm.kernel_model import Element
from vrouter_vm.model import Exporter, Network, RouteTarget, RouteTargets
from vrouter_vm.overlay.evpn import NO_ASN
from vrouter_vm.tf.addresses import tag_set
from vrouter_vm.wanted.policing import Policing


def importing(name: str, network_id: int, *imports: str, own: str | None = None) -> Network:
    targets = RouteTargets(
        own=frozenset({RouteTarget(own)} if own else ()), imports=frozenset(map(RouteTarget, imports))
    )
    return replace(make_network(name, network_id), targets=targets)


def zones_of(*networks: Network, asn: int = 64512) -> list[int]:
    policing = Policing(asn=asn)
    policing.set_networks({network.vn_uuid: network for network in networks})
    return [policing.zone_of(network) for network in networks]


@pytest.mark.parametrize(("own", "imported"), [(None, "64512:7"), ("64512:8000009", "64512:8000009")])
def test_networks_that_import_each_other_share_a_zone_whether_or_not_tf_has_set_their_targets(
    own: str | None, imported: str
) -> None:
    red = importing("red", 5, imported)
    green = importing("green", 7, own=own)
    assert zones_of(red, green) == [5, 5]


def test_networks_apart_from_each_other_have_zones_of_their_own() -> None:
    assert zones_of(importing("red", 5, "64512:9"), importing("green", 7)) == [5, 7]
    assert zones_of(importing("red", 5, "64512:7"), importing("green", 7), asn=NO_ASN) == [5, 7], "no overlay"


def connected_zones(*here: Network, of_blue: int = 4) -> dict[str, int]:
    """The zones of networks with guests here, where policies connect red with green and green with blue."""
    red, green, blue = (make_network(name, number) for name, number in (("red", 5), ("green", 7), ("blue", of_blue)))
    policing = Policing(asn=64512)
    policing.set_connected(
        frozenset({frozenset({red.vn_uuid, green.vn_uuid}), frozenset({green.vn_uuid, blue.vn_uuid})}),
        {
            network.vn_uuid: Exporter(
                network_id=network.network_id,
                targets=RouteTargets(own=frozenset({RouteTarget(f"64512:{8000000 + at}")})),
            )
            for at, network in enumerate((red, green, blue))
        },
    )
    policing.set_networks({network.vn_uuid: network for network in here})
    return {network.name: policing.zone_of(network) for network in here}


def test_the_first_guest_of_a_network_that_a_policy_connects_changes_no_zone_of_flows_under_way() -> None:
    red, green = make_network("red", 5), make_network("green", 7)
    assert connected_zones(green) == {"green": 4}
    assert connected_zones(red, green) == {"red": 4, "green": 4}


@pytest.mark.parametrize("number", [4, 70000])
def test_a_connected_network_elsewhere_lends_no_id_that_is_another_networks_or_no_zone(number: int) -> None:
    green, new = make_network("green", 7), make_network("new", 4)
    assert connected_zones(green, new, of_blue=number) == {"green": 5, "new": 4}


def test_members_that_go_together_with_their_network_leave_nothing_in_the_set() -> None:
    policing, tier = Policing(asn=64512), tag_set("web")
    red, green = make_network("red", 5), make_network("green", 7)
    policing.set_networks({red.vn_uuid: red, green.vn_uuid: green})
    policing.set_members(tier, frozenset({(red.vn_uuid, "10.1.1.8"), (green.vn_uuid, "10.2.0.8")}))
    assert built(policing) == {("5", "10.1.1.8"), ("7", "10.2.0.8")}
    policing.set_members(tier, frozenset({(red.vn_uuid, "10.1.1.8")}))
    policing.set_networks({red.vn_uuid: red})
    assert built(policing) == {("5", "10.1.1.8")}
    policing.set_members(tier, None)
    policing.set_networks({})
    assert built(policing) == set()


def built(policing: Policing) -> set[Element]:
    return {element for _, part in policing.settle() for _, elements in part.member_sets for element in elements}
