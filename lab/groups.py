"""Security groups in TF, as its users make them: through the config API.

Called by the lab's story and the end-to-end tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lab.site import TENANT
from tf_api.client import ConfigApi

ANYWHERE: Final = {"subnet": {"ip_prefix": "0.0.0.0", "ip_prefix_len": 0}}
ITSELF: Final = {"security_group": "local"}


def leaving() -> dict[str, Any]:
    """A rule that lets everything out, by IPv4."""
    return _rule(src=ITSELF, dst=ANYWHERE, protocol="any")


def arriving(protocol: str) -> dict[str, Any]:
    """A rule that lets a protocol in from anywhere, by IPv4."""
    return _rule(src=ANYWHERE, dst=ITSELF, protocol=protocol)


def create_group(api: ConfigApi, name: str, rules: Sequence[Mapping[str, Any]]) -> str:
    """Create a security group of the tenant; its uuid. Raises `Conflict` if there is one of that name."""
    body = {"fq_name": [*TENANT, name], "parent_type": "project", "security_group_entries": _entries(rules)}
    return api.create("security-group", body)


def set_rules(api: ConfigApi, group_uuid: str, rules: Sequence[Mapping[str, Any]]) -> None:
    """Replace a group's rules."""
    api.update("security-group", group_uuid, {"security_group_entries": _entries(rules)})


def join_group(api: ConfigApi, vmi_uuid: str, group_uuid: str) -> None:
    """Make an interface a member."""
    api.ref_update(
        "virtual-machine-interface", vmi_uuid, operation="ADD", ref_resource="security-group", ref_uuid=group_uuid
    )


def leave_group(api: ConfigApi, vmi_uuid: str, group_uuid: str) -> None:
    """Make it one no more."""
    api.ref_update(
        "virtual-machine-interface", vmi_uuid, operation="DELETE", ref_resource="security-group", ref_uuid=group_uuid
    )


def _entries(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"policy_rule": [dict(rule) for rule in rules]}


def _rule(*, src: Mapping[str, Any], dst: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    every_port = [{"start_port": 0, "end_port": 65535}]
    return {
        "direction": ">",
        "ethertype": "IPv4",
        "protocol": protocol,
        "src_addresses": [dict(src)],
        "dst_addresses": [dict(dst)],
        "src_ports": every_port,
        "dst_ports": every_port,
    }
