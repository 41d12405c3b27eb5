"""Which networks a tenant can use, asked of the real embedded controller."""

from __future__ import annotations

import pytest

from lab.controller import Controller
from tf_api.client import ConfigApi
from tf_api.networks import list_virtual_networks
from tf_reconcile.errors import Rejected

TENANT = ("default-domain", "vCenter")
OTHER = ("default-domain", "other")


def network(api: ConfigApi, project: tuple[str, ...], name: str, **properties: object) -> None:
    api.create("virtual-network", {"fq_name": [*project, name], "parent_type": "project", **properties})


def test_a_tenant_has_its_own_networks_and_those_shared_to_it_and_no_others() -> None:
    with Controller() as controller:
        api = controller.api()
        tenant = api.create("project", {"fq_name": [*TENANT], "parent_type": "domain"})
        api.create("project", {"fq_name": [*OTHER], "parent_type": "domain"})
        domain = api.fqname_to_uuid("domain", TENANT[:1])
        network(api, TENANT, "own")
        network(api, OTHER, "private")
        network(api, OTHER, "shared-to-all", is_shared=True)
        shares = {
            "shared-to-tenant": {"tenant": f"tenant:{tenant}", "tenant_access": 5},
            "shared-to-domain": {"tenant": f"domain:{domain}", "tenant_access": 7},
            "readable-only": {"tenant": f"tenant:{tenant}", "tenant_access": 4},
            "shared-elsewhere": {"tenant": f"tenant:{domain}", "tenant_access": 7},
        }
        for name, share in shares.items():
            network(api, OTHER, name, perms2={"owner": "cloud-admin", "share": [share]})
        names = {found.name for found in list_virtual_networks(api, TENANT)}
    assert names == {"own", "shared-to-all", "shared-to-tenant", "shared-to-domain"}


def test_a_tenant_that_does_not_exist_is_an_error_and_not_a_tenant_without_networks() -> None:
    with Controller() as controller, pytest.raises(Rejected, match="no project default-domain:vCenter"):
        list_virtual_networks(controller.api(), TENANT)
