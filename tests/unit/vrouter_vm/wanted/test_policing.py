from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.vrouter_host import make_network
from vrouter_vm.kernel_model import Element
from vrouter_vm.model import Network, RouteTarget, RouteTargets
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
