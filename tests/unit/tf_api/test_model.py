from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tf_api import model
from tf_reconcile.errors import Rejected

NETWORK: dict[str, Any] = {
    "uuid": "vn",
    "fq_name": ["default-domain", "vCenter", "blue"],
    "parent_uuid": "project",
    "display_name": "Blue",
    "virtual_network_network_id": 5,
    "is_shared": False,
    "network_ipam_refs": [
        {
            "to": ["default-domain", "vCenter", "ipam"],
            "uuid": "ipam",
            "attr": {
                "ipam_subnets": [
                    {
                        "subnet": {"ip_prefix": "10.1.1.0", "ip_prefix_len": 24},
                        "subnet_uuid": "s4",
                        "default_gateway": "10.1.1.254",
                        "dns_server_address": "10.1.1.253",
                        "dns_nameservers": ["8.8.8.8"],
                    },
                    {
                        "subnet": {"ip_prefix": "fd00::", "ip_prefix_len": 64},
                        "subnet_uuid": "s6",
                        "default_gateway": "::",
                        "enable_dhcp": False,
                    },
                ]
            },
        }
    ],
    "annotations": {"key_value_pair": [{"key": "k", "value": "v"}]},
}


def test_a_network_with_two_families() -> None:
    network = model.parse_virtual_network(NETWORK)
    first, second = network.subnets
    assert (network.name, network.display_name, network.project_uuid, network.network_id) == (
        "blue",
        "Blue",
        "project",
        5,
    )
    assert (first.prefix, first.gateway, first.dns) == (
        ip_network("10.1.1.0/24"),
        ip_address("10.1.1.254"),
        ip_address("10.1.1.253"),
    )
    assert first.dhcp_enabled
    assert first.dns_nameservers == (ip_address("8.8.8.8"),)
    assert (second.prefix, second.gateway, second.dns) == (ip_network("fd00::/64"), None, None)
    assert not second.dhcp_enabled
    assert network.has_ipam
    assert not network.external_ipam
    assert network.subnet_of(ip_address("fd00::9")) == second
    assert network.subnet_of(ip_address("10.1.2.1")) is None
    assert hash(network) == hash(model.parse_virtual_network(NETWORK))


def test_a_network_without_ipam_and_one_on_a_flat_ipam_have_no_subnets_of_their_own() -> None:
    bare = {key: value for key, value in NETWORK.items() if key not in ("network_ipam_refs", "display_name")}
    flat = {**NETWORK, "network_ipam_refs": [{"uuid": "i", "attr": {"ipam_subnets": [{"subnet_uuid": "s"}]}}]}
    network = model.parse_virtual_network(bare)
    assert (network.has_ipam, network.subnets, network.display_name) == (False, (), "blue")
    assert (model.parse_virtual_network(flat).has_ipam, model.parse_virtual_network(flat).subnets) == (True, ())


@pytest.mark.parametrize(
    "broken",
    [
        {key: value for key, value in NETWORK.items() if key != "virtual_network_network_id"},
        {**NETWORK, "fq_name": None},
        {
            **NETWORK,
            "network_ipam_refs": [{"attr": {"ipam_subnets": [{"subnet": {"ip_prefix": "x", "ip_prefix_len": 1}}]}}],
        },
    ],
)
def test_what_is_not_as_the_schema_promises_is_rejected_with_its_uuid(broken: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match="virtual-network vn"):
        model.parse_virtual_network(broken)


def test_an_interface() -> None:
    interface = model.parse_virtual_machine_interface(
        {
            "uuid": "vmi",
            "fq_name": ["default-domain", "vCenter", "vmi"],
            "parent_type": "project",
            "parent_uuid": "project",
            "id_perms": {"creator": "vcenter-manager"},
            "virtual_machine_interface_mac_addresses": {"mac_address": ["00-50-56-AA-BB-0C"]},
            "virtual_network_refs": [{"to": ["n"], "uuid": "vn"}],
            "virtual_machine_refs": [{"to": ["vm"], "uuid": "vm"}],
            "security_group_refs": [{"to": ["a"], "uuid": "sg-a"}, {"to": ["b"], "uuid": "sg-b"}],
        }
    )
    assert interface.mac_addresses == ("00:50:56:aa:bb:0c",)
    assert interface.creator == "vcenter-manager"
    assert (interface.virtual_network_uuid, interface.virtual_machine_uuids) == ("vn", ("vm",))
    assert interface.security_group_uuids == ("sg-a", "sg-b")


def test_an_address_with_and_without_its_value() -> None:
    base = {"uuid": "ip", "fq_name": ["ip"], "virtual_machine_interface_refs": [{"uuid": "vmi"}]}
    address = model.parse_instance_ip({**base, "instance_ip_address": "10.0.0.1", "subnet_uuid": "s"})
    assert (address.address, address.subnet_uuid, address.interface_uuids) == (ip_address("10.0.0.1"), "s", ("vmi",))
    assert model.parse_instance_ip(base).address is None


def test_a_machine_and_its_annotations() -> None:
    machine = model.parse_virtual_machine(
        {"uuid": "vm", "fq_name": ["vm"], "annotations": {"key_value_pair": [{"key": "a", "value": "b"}]}}
    )
    assert (machine.annotation("a"), machine.annotation("x"), machine.creator) == ("b", None, None)
