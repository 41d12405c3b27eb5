from __future__ import annotations

import pytest

from tests.unit.vcenter_plugin.cases import TENANT, network
from vcenter_plugin.desired import SYSTEM_NETWORKS, SYSTEM_PROJECT, wanted_portgroups


@pytest.mark.parametrize("name", [*sorted(SYSTEM_NETWORKS), "made-by-an-admin"])
def test_networks_of_tf_itself_get_no_portgroup_even_when_they_are_shared(name: str) -> None:
    own, theirs = network("blue"), network(name, project="default-project")
    assert set(wanted_portgroups([own, theirs], tenant=TENANT)) == {own.vn_uuid}


def test_where_the_default_project_is_the_tenant_its_networks_are_served_and_tfs_own_are_not() -> None:
    networks = [network(name, project="default-project") for name in ("blue", *sorted(SYSTEM_NETWORKS))]
    assert set(wanted_portgroups(networks, tenant=SYSTEM_PROJECT)) == {networks[0].vn_uuid}


def test_a_network_of_another_project_with_such_a_name_is_a_network() -> None:
    shared = network("ip-fabric", project="shop")
    assert [one.spec.name for one in wanted_portgroups([shared], tenant=TENANT).values()] == ["shop.ip-fabric"]
