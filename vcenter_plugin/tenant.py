"""Pure: the project that guests of vCenter live in, its ipam and its security group, as the old plugin made them.

The security group `default` lets a guest talk to the members of the same group and start talking to anybody; unlike
the old plugin's it has the rules for IPv6 too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

CREATOR = "vcenter-plugin"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """One config API object to create: its type and its body."""

    resource: str
    fq_name: tuple[str, ...]
    body: dict[str, Any]


def tenant_objects(fq_name: Sequence[str]) -> tuple[NewObject, ...]:
    """Return project, ipam and security group of the tenant `fq_name` (domain and project), parents first."""
    domain, project = fq_name
    return (
        _new("project", (domain, project), parent_type="domain"),
        _new("network-ipam", (domain, project, f"{project}-ipam"), parent_type="project"),
        _new(
            "security-group",
            (domain, project, "default"),
            parent_type="project",
            security_group_entries={"policy_rule": _rules((domain, project, "default"))},
        ),
    )


def missing_objects(fq_name: Sequence[str], existing: Collection[tuple[str, tuple[str, ...]]]) -> tuple[NewObject, ...]:
    """Return those of `tenant_objects` that are not among `existing` (type and fq_name), parents first."""
    return tuple(new for new in tenant_objects(fq_name) if (new.resource, new.fq_name) not in existing)


def _new(resource: str, fq_name: tuple[str, ...], *, parent_type: str, **properties: Any) -> NewObject:
    body = {
        "fq_name": list(fq_name),
        "parent_type": parent_type,
        "id_perms": {"enable": True, "creator": CREATOR},
        **properties,
    }
    return NewObject(resource=resource, fq_name=fq_name, body=body)


def _rules(group: tuple[str, ...]) -> list[dict[str, Any]]:
    local, own = {"security_group": "local"}, {"security_group": ":".join(group)}
    return [
        rule
        for ethertype, anybody in (("IPv4", ("0.0.0.0", 0)), ("IPv6", ("::", 0)))
        for rule in (
            _rule(group, ethertype, source=own, destination=local),
            _rule(group, ethertype, source=local, destination={"subnet": _subnet(*anybody)}),
        )
    ]


def _rule(
    group: tuple[str, ...], ethertype: str, *, source: dict[str, Any], destination: dict[str, Any]
) -> dict[str, Any]:
    every_port = [{"start_port": 0, "end_port": 65535}]
    text = f"{':'.join(group)} {ethertype} {sorted(source.items())} {sorted(destination)}"
    return {
        "rule_uuid": str(uuid5(NAMESPACE_URL, text)),
        "direction": ">",
        "protocol": "any",
        "ethertype": ethertype,
        "src_addresses": [source],
        "src_ports": every_port,
        "dst_addresses": [destination],
        "dst_ports": every_port,
    }


def _subnet(prefix: str, length: int) -> dict[str, Any]:
    return {"ip_prefix": prefix, "ip_prefix_len": length}
