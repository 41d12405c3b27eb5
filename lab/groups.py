"""Security groups in TF, as its users make them: through the config API.

Called by the lab's story and the end-to-end tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lab.site import TENANT
from tf_api.client import ConfigApi
from tf_api.model import JsonObject, reference

ANYWHERE: Final = {"subnet": {"ip_prefix": "0.0.0.0", "ip_prefix_len": 0}}
ITSELF: Final = {"security_group": "local"}


def leaving() -> dict[str, Any]:
    """A rule that lets everything out, by IPv4."""
    return _rule(src=ITSELF, dst=ANYWHERE, protocol="any")


def arriving(protocol: str) -> dict[str, Any]:
    """A rule that lets a protocol in from anywhere, by IPv4."""
    return _rule(src=ANYWHERE, dst=ITSELF, protocol=protocol)


def create_group(api: ConfigApi, name: str, rules: Sequence[Mapping[str, Any]]) -> JsonObject:
    """Create a security group of the tenant; a reference to it. Raises `Conflict` if there is one of that name."""
    fq_name = [*TENANT, name]
    body = {"fq_name": fq_name, "parent_type": "project", "security_group_entries": _entries(rules)}
    return reference(api.create("security-group", body), fq_name)


def set_rules(api: ConfigApi, group_uuid: str, rules: Sequence[Mapping[str, Any]]) -> None:
    """Replace a group's rules."""
    api.update("security-group", group_uuid, {"security_group_entries": _entries(rules)})


def groups_of(api: ConfigApi, vmi_uuid: str) -> list[JsonObject]:
    """The references to the groups that an interface is in; in TF that is its project's default group at first."""
    interface = api.read("virtual-machine-interface", vmi_uuid, fields=["security_group_refs"]) or {}
    return list(interface.get("security_group_refs") or ())


def set_groups(api: ConfigApi, vmi_uuid: str, references: Sequence[JsonObject]) -> None:
    """Put an interface into these groups, and into no other."""
    api.update("virtual-machine-interface", vmi_uuid, {"security_group_refs": list(references)})


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
