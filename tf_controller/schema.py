"""The types of the config API: which exist here, what their properties may hold.

Pure. Called by every part that handles objects. The data is `schema.json`, the whole schema of TF; a type is served
when it is in `SERVED`: its rules beyond the schema (see `hooks`) are implemented, or it has none.
"""

from __future__ import annotations

import functools
import ipaddress
from importlib import resources
from typing import Any, Final, TypeAlias

import msgspec

from tf_controller.refusal import bad_request

JsonObject: TypeAlias = dict[str, Any]

SERVED: Final = frozenset(
    {
        "address-group",
        "alias-ip",
        "alias-ip-pool",
        "application-policy-set",
        "bgp-router",
        "domain",
        "firewall-policy",
        "firewall-rule",
        "floating-ip",
        "floating-ip-pool",
        "global-qos-config",
        "global-system-config",
        "global-vrouter-config",
        "instance-ip",
        "interface-route-table",
        "network-ipam",
        "network-policy",
        "policy-management",
        "project",
        "route-table",
        "routing-instance",
        "security-group",
        "service-group",
        "subnet",
        "tag",
        "tag-type",
        "virtual-DNS",
        "virtual-DNS-record",
        "virtual-machine",
        "virtual-machine-interface",
        "virtual-network",
        "virtual-router",
    }
)
CONFIG_ROOT: Final = "config-root"
_INTEGERS: Final = frozenset({"integer", "unsignedLong"})


class Property(msgspec.Struct, frozen=True):
    """A property of a type."""

    xsd_type: str
    is_complex: bool = False
    collection: str | None = None
    map_key: str | None = None
    restriction_type: str | None = None
    restrictions: tuple[str | int, ...] = ()


class Link(msgspec.Struct, frozen=True):
    """A reference, a kind of children or of back-references. `attr`: the class of a reference's attributes, the word
    None without.
    """

    type: str
    derived: bool = False
    attr: str = "None"


class ResourceType(msgspec.Struct, frozen=True):
    """A type of objects."""

    props: dict[str, Property] = {}
    refs: dict[str, Link] = {}
    children: dict[str, Link] = {}
    back_refs: dict[str, Link] = {}
    parent_types: tuple[str, ...] = ()


class Field(msgspec.Struct, frozen=True):
    """A field of a complex type."""

    attr_type: str
    is_array: bool
    is_complex: int
    restriction_type: str | None = None
    restrictions: tuple[str | int, ...] = ()


class Schema(msgspec.Struct, frozen=True):
    """The whole schema; ask `resource` for a type that is served."""

    complex_types: dict[str, dict[str, Field]]
    resources: dict[str, ResourceType]

    def resource(self, name: str) -> ResourceType | None:
        """Return the type called `name` (hyphens or underscores), or None when it is not served."""
        key = name.replace("_", "-")
        return self.resources.get(key) if key in SERVED else None

    def checked_property(self, name: str, spec: Property, value: Any) -> Any:
        """Return `value` as it is to be stored; Refusal 400 when the property cannot hold it."""
        if value is None:
            return None
        if spec.is_complex:
            try:
                return self.checked_complex(spec.xsd_type, value)
            except ValueError as error:
                raise bad_request(f"Error validating property {name} value {value} {error}") from error
        try:
            _check_simple(name, spec.xsd_type, spec.restriction_type, spec.restrictions, value)
        except ValueError as error:
            raise bad_request(f"Error validating property {error}") from error
        return value

    def checked_attr(self, ref_field: str, class_name: str, ref: JsonObject) -> JsonObject | None:
        """Return the attributes of the reference `ref` as they are to be stored; Refusal 400 when they do not fit
        their class.
        """
        if class_name == "None":
            return None
        context = f"Error validating reference {ref_field} value {ref}"
        if "attr" not in ref:
            raise bad_request(f"{context} 'attr'")
        if ref["attr"] is None:
            return None
        try:
            checked: JsonObject = self.checked_complex(class_name, ref["attr"])
        except ValueError as error:
            raise bad_request(f"{context} {error}") from error
        return checked

    def checked_complex(self, class_name: str, value: Any) -> Any:
        """Return a complex value as it is to be stored, networks without host bits; ValueError when it does not fit."""
        if not isinstance(value, dict):
            raise ValueError(f"{class_name}: object expected instead of {value}")  # noqa: TRY004 a misfit
        fields = self.complex_types[class_name]
        checked = {}
        for name, item in value.items():
            field = fields.get(name)
            if field is None:
                raise ValueError(f"class <class 'vnc_api.gen.resource_xsd.{class_name}'> does not have field {name}")
            checked[name] = self._checked_field(name, field, item)
        return _without_host_bits(checked) if class_name == "SubnetType" else checked

    def _checked_field(self, name: str, field: Field, value: Any) -> Any:
        if value is None:
            return None
        if not field.is_array:
            return self._checked_item(name, field, value)
        if not isinstance(value, list):
            raise ValueError(f"{name}: a list expected instead of {value}")  # noqa: TRY004 a misfit
        return [self._checked_item(name, field, item) for item in value]

    def _checked_item(self, name: str, field: Field, value: Any) -> Any:
        if field.is_complex:
            return self.checked_complex(field.attr_type, value)
        _check_simple(name, field.attr_type, field.restriction_type, field.restrictions, value)
        return value


def _check_simple(
    name: str, xsd_type: str, restriction: str | None, allowed: tuple[str | int, ...], value: Any
) -> None:
    if xsd_type == "boolean":
        if not isinstance(value, bool):
            raise ValueError(f"{name}: true/false expected instead of {value}")
    elif xsd_type in _INTEGERS:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name}: integer value expected instead of {value}")
        if restriction == "range" and not int(allowed[0]) <= value <= int(allowed[1]):
            raise ValueError(f"{name}: value must be between {allowed[0]} and {allowed[1]}")
    elif not isinstance(value, str):
        raise ValueError(f"{name}: string value expected instead of {value}")
    elif restriction == "enum" and allowed and value not in allowed:
        raise ValueError(f"{name}: value must be one of {[*allowed]}")


def _without_host_bits(subnet: JsonObject) -> JsonObject:
    if subnet.get("ip_prefix") is None:
        return subnet
    text = f"{subnet['ip_prefix']}/{subnet.get('ip_prefix_len')}"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"Subnet type '{text}' is invalid") from error
    return {**subnet, "ip_prefix": str(network.network_address)}


@functools.cache
def load_schema() -> Schema:
    """Return the schema; read once."""
    return msgspec.json.decode(resources.files("tf_controller").joinpath("schema.json").read_bytes(), type=Schema)
