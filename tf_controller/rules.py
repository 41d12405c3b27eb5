"""Small rules of single types, as values in and values out.

Pure. Called by `hooks`.
"""

from __future__ import annotations

import ipaddress
import re
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from tf_controller.refusal import bad_request, conflict, mistake
from tf_controller.schema import Schema

JsonObject: TypeAlias = dict[str, Any]

_SHARED, _EXTERNAL, _PRIVATE = 7, 5, 0
_PROTOCOLS: Final = frozenset({"any", "tcp", "udp", "icmp", "icmp6"})
_LAST_PROTOCOL: Final = 255
_IP_VERSION: Final = {"IPv4": 4, "IPv6": 6}
_ROUTE_TARGET_LISTS: Final = ("route_target_list", "import_route_target_list", "export_route_target_list")
_ROUTE_TARGET: Final = re.compile(r"^target:(?P<administrator>\d+|\d+\.\d+\.\d+\.\d+):(?P<number>\d+)$")
_AUTOMATIC: Final = (8000000, 16777216)
_OF_SERVER: Final = "vif_type"


def global_access(properties: Mapping[str, Any]) -> int:
    """Return perms2.global_access that a network's is_shared and router_external stand for."""
    if properties.get("is_shared"):
        return _SHARED
    return _EXTERNAL if properties.get("router_external") else _PRIVATE


def refuse_route_targets(properties: Mapping[str, Any], *, autonomous_system: int) -> None:
    """Refusal 400 for a route target of a network in the range that the controller numbers by itself, 500 for what is
    none.
    """
    for field in _ROUTE_TARGET_LISTS:
        for text in (properties.get(field) or {}).get("route_target") or ():
            match = _ROUTE_TARGET.match(text)
            if match is None:
                raise mistake(
                    f"Route target must be of the format 'target:<asn>:<number>' or 'target:<ip>:<number>': {text}"
                )
            if (
                match["administrator"] == str(autonomous_system)
                and _AUTOMATIC[0] <= int(match["number"]) <= _AUTOMATIC[1]
            ):
                raise bad_request(
                    "Configured route target must use ASN that is different from global ASN or route target value must"
                    f" be less than {_AUTOMATIC[0]} and greater than {_AUTOMATIC[1]}"
                )


def generated_mac(interface_uuid: str) -> str:
    """Return the MAC of an interface that was given none: 02, then the first five bytes of its uuid."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *uuids.UUID(interface_uuid).bytes[:5]))


def bindings(properties: Mapping[str, Any], *, is_new: bool) -> JsonObject | None:
    """Return an interface's bindings as they are kept, None when there are none: vif_type is the server's, a new
    interface's vnic_type is normal.
    """
    given = properties.get("virtual_machine_interface_bindings")
    if not given:
        return None
    pairs = [pair for pair in given.get("key_value_pair") or () if pair.get("key") != _OF_SERVER]
    if is_new and all(pair.get("key") != "vnic_type" for pair in pairs):
        pairs.append({"key": "vnic_type", "value": "normal"})
    return {"key_value_pair": pairs}


def routing_instance_attr(schema: Schema) -> JsonObject:
    """Return the attributes of an interface's reference to the routing instance of its network."""
    fields = schema.complex_types["PolicyBasedForwardingRuleType"]
    return {**dict.fromkeys(fields), "direction": "both"}


def security_group_rules(given: list[JsonObject], *, new_uuid: Callable[[], str]) -> list[JsonObject]:
    """Return a group's rules, each with a rule_uuid; refusal 400 for one that cannot be meant, 409 for the same one
    twice.
    """
    checked: list[JsonObject] = []
    for rule in given:
        _check_rule(rule)
        bare = _without_uuid(rule)
        if twin := next((other for other in checked if _without_uuid(other) == bare), None):
            raise conflict(f"Rule already exists : {twin['rule_uuid']}")
        checked.append({**rule, "rule_uuid": rule.get("rule_uuid") or new_uuid()})
    return checked


def _check_rule(rule: JsonObject) -> None:
    protocol = str(rule.get("protocol") or "any").lower()
    if protocol not in _PROTOCOLS and not (protocol.isdecimal() and int(protocol) <= _LAST_PROTOCOL):
        raise bad_request(f"Rule with invalid protocol : {rule.get('protocol')}")
    sides = [*(rule.get("src_addresses") or ()), *(rule.get("dst_addresses") or ())]
    if all(side.get("security_group") != "local" for side in sides):
        raise bad_request("At least one of source or destination addresses must be 'local'")
    version = _IP_VERSION.get(rule.get("ethertype") or "")
    for side in sides:
        for subnet in [side.get("subnet"), *(side.get("subnet_list") or ())]:
            if subnet and version not in (None, ipaddress.ip_address(subnet["ip_prefix"]).version):
                raise bad_request(f"Rule subnet {subnet['ip_prefix']} doesn't match ethertype {rule['ethertype']}")


def _without_uuid(rule: JsonObject) -> JsonObject:
    return {key: value for key, value in rule.items() if key != "rule_uuid"}
