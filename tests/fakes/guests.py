"""Guests as the guest services see them, and messages as their clients send them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from tests.fakes.vrouter_host import make_port
from vrouter_vm.guest_services.guest import Guest, Terms, guest_of
from vrouter_vm.model import InterfaceSettings, IpAddress, Ipam, LinkLocalService, Network, Placement, Subnet, VnUuid
from vrouter_vm.tf.virtual_dns import DnsRecord, RecordOrder, RecordType, VirtualDns

TERMS = Terms(mtu_bytes=1450, lease_s=86400)
METADATA = LinkLocalService(
    name="metadata",
    address=ip_address("169.254.169.254"),
    port=80,
    fabric_name="",
    fabric_addresses=(ip_address("192.0.2.80"),),
    fabric_port=8775,
)


def make_record(owner: str, of_type: str, data: str, preference: int = 0) -> DnsRecord:
    """A record that lives for a minute."""
    return DnsRecord(owner=owner, type=RecordType(of_type), ttl_s=60, data=data, preference=preference)


def make_virtual_dns(name: str, *records: DnsRecord, **changes: Any) -> VirtualDns:
    """The virtual DNS of the domain `<name>.example`, for the guests of 10.1.1.0/24."""
    told = VirtualDns(
        name=f"default-domain:{name}",
        domain=f"{name}.example",
        ttl_s=60,
        negative_ttl_s=60,
        order=RecordOrder.FIXED,
        following="",
        asks_for_addresses=False,
        prefixes=(ip_network("10.1.1.0/24"),),
        records=records,
    )
    return replace(told, **changes)


class Names:
    """What is known of virtual DNSs, as a test says."""

    def __init__(self, *known: VirtualDns) -> None:
        self.known = {each.name: each for each in known}
        self.needed: frozenset[str] = frozenset()

    def need(self, names: frozenset[str]) -> None:
        """Take note of it."""
        self.needed = names

    def describe(self) -> dict[str, Any]:
        """What /status shows of it."""
        return {}


def make_subnet(prefix: str, *, ipam: Ipam | None = None, **changes: Any) -> Subnet:
    """A subnet with gateway .1 and service address .2 unless told otherwise."""
    network = ip_network(prefix)
    subnet = Subnet(prefix=network, gateway=network[1], dns=network[2], ipam=ipam or Ipam())
    return replace(subnet, **changes)


RED4, RED6 = make_subnet("10.1.1.0/24"), make_subnet("fd00:1::/64")


def make_placement(
    *subnets: Subnet,
    addresses: tuple[str, ...] = ("10.1.1.11", "fd00:1::11"),
    settings: InterfaceSettings | None = None,
    **changes: Any,
) -> Placement:
    """The port of guest-1 on VLAN 101, in a network of these subnets; `changes` are the network's."""
    network = Network(vn_uuid=VnUuid("red"), name="red", network_id=5, subnets=subnets or (RED4, RED6))
    return Placement(
        port=make_port(1, addresses=addresses),
        network=replace(network, **changes),
        settings=settings or InterfaceSettings(vmi_uuid=make_port(1).vmi_uuid),
        vlan=101,
        vif="eth1.101",
        vrf="v5",
        is_active=True,
    )


def make_guest(*subnets: Subnet, addresses: tuple[str, ...] = ("10.1.1.11", "fd00:1::11"), **changes: Any) -> Guest:
    """What the guest of such a port is told."""
    return guest_of(make_placement(*subnets, addresses=addresses, **changes), terms=TERMS)


def dhcp4_message(
    kind: int,
    options: Mapping[int, bytes] | None = None,
    *,
    client: str = "0.0.0.0",
    mac: str = "00:50:56:aa:00:01",
    flags: int = 0,
    relay: str = "0.0.0.0",
) -> bytes:
    """The payload of a DHCPv4 client's message."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    head = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0x01020304, 0, flags) + IPv4Address(client).packed + bytes(8)
    head += IPv4Address(relay).packed + hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
    listed = {53: bytes([kind]), **(options or {})}
    return head + b"".join(bytes([code, len(data)]) + data for code, data in listed.items()) + b"\xff"


def dhcp4_options(payload: bytes) -> dict[int, bytes]:
    """The options of a DHCPv4 answer; a test's own reading of it."""
    options: dict[int, bytes] = {}
    rest = payload[240:]
    while rest and rest[0] != 255:
        length = 0 if rest[0] == 0 else rest[1] + 1
        if length:
            options[rest[0]] = options.get(rest[0], b"") + rest[2 : 1 + length]
        rest = rest[1 + length :]
    return options


def dhcp6_message(kind: int, *options: tuple[int, bytes]) -> bytes:
    """The payload of a DHCPv6 client's message."""
    return bytes([kind, 1, 2, 3]) + b"".join(dhcp6_option(code, data) for code, data in options)


def dhcp6_option(code: int, data: bytes) -> bytes:
    """One DHCPv6 option."""
    return struct.pack("!HH", code, len(data)) + data


def dhcp6_options(data: bytes) -> list[tuple[int, bytes]]:
    """The options in `data`; a test's own reading of it."""
    options = []
    while data:
        code, length = struct.unpack_from("!HH", data)
        options.append((code, data[4 : 4 + length]))
        data = data[4 + length :]
    return options


def addresses_in(data: bytes) -> list[IpAddress]:
    """IPv4 addresses one after the other."""
    return [ip_address(data[at : at + 4]) for at in range(0, len(data), 4)]
