"""What a fresh database holds, as on a real server: the names every other object hangs on.

Called by `server` at each start; makes only what is missing.
"""

from __future__ import annotations

from typing import Final

from tf_controller import objects
from tf_controller.change import Change
from tf_controller.policy_hooks import TAG_TYPES
from tf_controller.records import JsonObject

_SYSTEM: Final = "default-global-system-config"
_PROJECT: Final = ("default-domain", "default-project")


def fill(change: Change) -> None:
    """Create the objects of a fresh database that are not there."""
    for resource, body in _fresh(domain_uuid=change.new_uuid()):
        if change.transaction.uuid_of(resource, body["fq_name"]) is None:
            objects.create(change, resource, {"display_name": None, **body})


def _fresh(*, domain_uuid: str) -> list[tuple[str, JsonObject]]:
    system = {"parent_type": "global-system-config"}
    vrouter_config = [_SYSTEM, "default-global-vrouter-config"]
    shared_with_domain = {"share": [{"tenant": f"domain:{domain_uuid}", "tenant_access": 6}]}
    return [
        (
            "global-system-config",
            {
                "fq_name": [_SYSTEM],
                "autonomous_system": 64512,
                "config_version": "1.0",
                "enable_4byte_as": False,
                "enable_security_policy_draft": False,
                "ibgp_auto_mesh": True,
                "igmp_enable": False,
                "mac_aging_time": 300,
            },
        ),
        (
            "global-vrouter-config",
            {"fq_name": vrouter_config, "encryption_mode": "none", "enable_security_logging": True, **system},
        ),
        ("global-qos-config", {"fq_name": [_SYSTEM, "default-global-qos-config"], **system}),
        ("policy-management", {"fq_name": ["default-policy-management"]}),
        (
            "application-policy-set",
            {
                "fq_name": ["default-policy-management", "default-application-policy-set"],
                "parent_type": "policy-management",
                "global_vrouter_config_refs": [{"to": vrouter_config}],
            },
        ),
        ("domain", {"fq_name": ["default-domain"], "uuid": domain_uuid, "perms2": shared_with_domain}),
        ("project", {"fq_name": [*_PROJECT], "parent_type": "domain"}),
        ("network-ipam", _of_project("default-network-ipam")),
        ("network-ipam", _of_project("service-chain-flat-ipam") | {"ipam_subnet_method": "flat-subnet"}),
        *(
            ("virtual-network", _of_project(name))
            for name in ("ip-fabric", "__link_local__", "dci-network", "default-virtual-network")
        ),
        # Beside each network's own: the parent of every bgp-router, by the name that TF's provisioning uses.
        ("routing-instance", {"fq_name": [*_PROJECT, "ip-fabric", "__default__"], "parent_type": "virtual-network"}),
        ("security-group", _of_project("__no_rule__")),
        *(("tag-type", {"fq_name": [of_type]}) for of_type in sorted(TAG_TYPES)),
    ]


def _of_project(name: str) -> JsonObject:
    return {"fq_name": [*_PROJECT, name], "parent_type": "project"}
