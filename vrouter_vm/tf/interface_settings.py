"""Pure: TF's virtual-machine-interfaces, as the config API gives them → settings.

Called by `interface_feed`. The shapes are those of TF's schema (vnc_cfg.xsd); what is unset is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, Final

from tf_api.model import parse_dhcp_options, parse_host_routes
from tf_reconcile.errors import DesiredStateError
from vrouter_vm.gateway_mac import parse_mac
from vrouter_vm.model import AddressPair, InterfaceSettings, VmiUuid
from vrouter_vm.tf import subnets
from vrouter_vm.tf.route_tables import parse_interface_table

RESOURCE: Final = "virtual-machine-interface"
ROUTE_TABLES: Final = "interface_route_table_refs"
PROPERTIES: Final = "virtual_machine_interface_properties"
NO_TABLES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})

FIELDS: Final = (
    "security_group_refs",
    "tag_refs",
    ROUTE_TABLES,
    "port_security_enabled",
    "virtual_machine_interface_disable_policy",
    "virtual_machine_interface_allowed_address_pairs",
    "virtual_machine_interface_dhcp_option_list",
    "virtual_machine_interface_host_routes",
    PROPERTIES,
)
"""The `fields` of a list call that `parse_interface` needs."""


def parse_interface(raw: dict[str, Any], tables: Mapping[str, Mapping[str, Any]] = NO_TABLES) -> InterfaceSettings:
    """Return the settings that a listed interface holds; raises `DesiredStateError` naming what is malformed.

    `tables`: the interface route tables that are known, by uuid; what is in none of them is left out.
    """
    pairs = (raw.get("virtual_machine_interface_allowed_address_pairs") or {}).get("allowed_address_pair") or ()
    return InterfaceSettings(
        vmi_uuid=VmiUuid(raw["uuid"]),
        security_groups=_uuids(raw, "security_group_refs"),
        tags=_uuids(raw, "tag_refs"),
        is_secured=raw.get("port_security_enabled") is not False,
        address_pairs=tuple(_pairs(raw["uuid"], pairs)),
        routes=tuple(
            dict.fromkeys(
                prefix
                for ref in raw.get(ROUTE_TABLES) or ()
                for prefix in parse_interface_table(tables.get(str(ref["uuid"]), {}))
            )
        ),
        dhcp_options=subnets.options_of(parse_dhcp_options(raw.get("virtual_machine_interface_dhcp_option_list"))),
        host_routes=subnets.prefixes_of(parse_host_routes(raw.get("virtual_machine_interface_host_routes"))),
        max_flows=(raw.get(PROPERTIES) or {}).get("max_flows") or 0,
    )


def _uuids(raw: dict[str, Any], field: str) -> frozenset[str]:
    return frozenset(str(ref["uuid"]) for ref in raw.get(field) or ())


def _pairs(vmi_uuid: str, pairs: Iterable[dict[str, Any]]) -> Iterable[AddressPair]:
    for pair in pairs:
        subnet = pair.get("ip") or {}
        try:
            prefix = ip_network(f"{subnet['ip_prefix']}/{subnet['ip_prefix_len']}", strict=False)
        except (KeyError, TypeError, ValueError) as error:
            raise DesiredStateError(vmi_uuid, f"allowed address pair {pair} has no prefix: {error}") from error
        mac = parse_mac(str(pair["mac"])) if pair.get("mac") else None
        if pair.get("mac") and mac is None:
            raise DesiredStateError(vmi_uuid, f"allowed address pair {pair}: {pair['mac']!r} is no MAC")
        yield AddressPair(prefix=prefix, mac=mac, is_shared=pair.get("address_mode") == "active-active")
