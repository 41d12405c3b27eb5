"""What the server asks of virtual DNS servers and their records.

Called by `hooks`. The rules are those of the real server (resources/virtual_dns.py and virtual_dns_record.py).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from tf_controller.change import Change
from tf_controller.records import Record
from tf_controller.refusal import Refusal, bad_request, mistake
from tf_controller.store import Snapshot

VIRTUAL_DNS: Final = "virtual-DNS"

_MOST_TTL_S: Final = (1 << 31) - 1
_MOST_PREFERENCE: Final = (1 << 16) - 1
_LONGEST_NAME: Final = 255
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_SERVER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*", re.IGNORECASE)
_READ_AND_LINK: Final = 5


def shared_with_domain(record: Record) -> Record:
    """Return a new virtual DNS that everybody in its domain may refer to."""
    perms2 = record.properties["perms2"]
    share = [*perms2["share"], {"tenant": f"domain:{record.parent_uuid}", "tenant_access": _READ_AND_LINK}]
    return record.with_properties({"perms2": {**perms2, "share": share}})


def refuse_virtual_dns(change: Change, record: Record) -> None:
    """Refusal: 403 for names and an order that cannot be, 400 for a TTL or a next server that cannot be, 500 when
    something is missing.
    """
    if not _SERVER_NAME.fullmatch(record.name):
        raise Refusal(403, "Special characters are not allowed in Virtual DNS server name")
    data = record.properties.get("virtual_DNS_data") or {}
    if not _is_name(str(_needed(data, "domain_name"))):
        raise Refusal(403, "Domain name does not adhere to DNS name requirements")
    _needed(data, "record_order")
    if not 0 <= int(_needed(data, "default_ttl_seconds")) <= _MOST_TTL_S:
        raise bad_request("Invalid value for TTL")
    if not (following := data.get("next_virtual_DNS")):
        return
    other = _virtual_dns(change.transaction, following)
    if other is None:
        if _version(following) != 4:  # noqa: PLR2004 - IP version
            raise bad_request("Invalid Virtual Forwarder(next virtual dns server)")
        return
    if _next_of(other) == ":".join(record.fq_name):
        raise Refusal(403, "Cannot have Virtual DNS Servers referring to each other")


def refuse_lost_forwarder(change: Change, record: Record) -> None:
    """Refusal 403 when another virtual DNS of the domain asks this one for what it does not know."""
    name = ":".join(record.fq_name)
    siblings = change.transaction.children([record.parent_uuid] if record.parent_uuid else [])
    others = (change.transaction.record(child.uuid) for child in siblings if child.resource == VIRTUAL_DNS)
    if any(other is not None and _next_of(other) == name for other in others):
        raise Refusal(403, "Virtual DNS server is referred by other virtual DNS servers")


def refuse_record(change: Change, record: Record) -> None:
    """Refusal: 403 for a name, value, TTL or preference that does not fit the record's type, 500 when one is missing.

    The schema has seen to type and class.
    """
    data = record.properties.get("virtual_DNS_record_data") or {}
    of_type, _ = _needed(data, "record_type"), _needed(data, "record_class")
    name, value = str(_needed(data, "record_name")), str(_needed(data, "record_data"))
    if of_type == "PTR":
        if _version(name) is None and "in-addr.arpa" not in name.lower() and "ip6.arpa" not in name.lower():
            raise Refusal(403, "PTR Record name has to be IP address or reverse.ip.in-addr.arpa")
    elif not _is_name(name):
        raise Refusal(403, "Record name does not adhere to DNS name requirements")
    match of_type:
        case "A" if _version(value) != 4:  # noqa: PLR2004 - IP version
            raise Refusal(403, "Invalid IP address")
        case "AAAA" if _version(value) != 6:  # noqa: PLR2004 - IP version
            raise Refusal(403, "Invalid IPv6 address")
        case "CNAME" | "PTR" | "MX" if not _is_name(value):
            raise Refusal(403, "Record data does not adhere to DNS name requirements")
        case "NS" if _virtual_dns(change.transaction, value) is None and not _is_name(value):
            raise Refusal(403, "Invalid virtual dns server in record data")
    if not 0 <= int(_needed(data, "record_ttl_seconds")) <= _MOST_TTL_S:
        raise Refusal(403, "Invalid value for TTL")
    if of_type == "MX" and not 0 <= int(_needed(data, "record_mx_preference")) <= _MOST_PREFERENCE:
        raise Refusal(403, "Invalid value for MX record preference")


def _needed(data: Mapping[str, Any], key: str) -> Any:
    if data.get(key) is None:
        raise mistake(f"KeyError: '{key}'")
    return data[key]


def _virtual_dns(snapshot: Snapshot, name: str) -> Record | None:
    uuid = snapshot.uuid_of(VIRTUAL_DNS, name.split(":"))
    return snapshot.record(uuid) if uuid else None


def _next_of(record: Record) -> str | None:
    return (record.properties.get("virtual_DNS_data") or {}).get("next_virtual_DNS")


def _is_name(name: str) -> bool:
    """Tell whether it is a host's or domain's name (RFC 1123, 2.1); a dot at its end is none of it."""
    return len(name) <= _LONGEST_NAME and all(map(_LABEL.fullmatch, name.removesuffix(".").split(".")))


def _version(text: str) -> int | None:
    """Return the IP version of an address, None for what is none."""
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None
