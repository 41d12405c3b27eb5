from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network

import pytest

from vrouter_vm.kernel import netlink, rtlink, rtroute
from vrouter_vm.kernel.netlink import Message
from vrouter_vm.kernel.rtlink import IpTunnel
from vrouter_vm.kernel.rtroute import AddressEntry, HopEntry, LabelEntry, NeighbourEntry, RouteEntry, RuleEntry

MAC = "00:50:56:00:00:01"


def test_messages_are_packed_one_after_the_other_and_the_last_one_is_acknowledged() -> None:
    packed = netlink.pack([rtlink.delete_link(7), rtlink.set_mtu(8, 1450)], first_sequence=41)
    unpacked = list(netlink.unpack(packed))
    assert [(kind, flags, sequence) for kind, flags, sequence, _ in unpacked] == [
        (rtlink.DEL_LINK, netlink.REQUEST, 41),
        (rtlink.SET_LINK, netlink.REQUEST | netlink.ACKNOWLEDGE, 42),
    ]
    assert [body for *_, body in unpacked] == [rtlink.delete_link(7).body, rtlink.set_mtu(8, 1450).body]
    assert len(packed) % 4 == 0


def test_a_vif_is_asked_for_in_one_message_as_ip_link_add_does() -> None:
    """The bytes of `ip link add link 2 name eth1.101 address 00:50:56:00:00:01 master 9 type vlan id 101`."""
    message = rtlink.create_link("eth1.101", "vlan", rtlink.vlan_data(101), mac=MAC, lower=2, master=9)
    assert (message.kind, message.flags) == (rtlink.NEW_LINK, netlink.CREATE | netlink.EXCLUSIVE)
    link = rtlink.parse_link(message.body)
    assert (link.name, link.kind, link.vlan, link.mac) == ("eth1.101", "vlan", 101, MAC)
    assert (link.lower_index, link.master_index, link.is_up) == (2, 9, False)
    assert b"\x0c\x00\x02\x00\x06\x00\x01\x00\x65\x00\x00\x00" in message.body, "nested, and padded to four bytes"


def test_a_tunnel_has_its_vni_its_vtep_and_no_learning() -> None:
    data = rtlink.vxlan_data(5001, IPv4Address("192.0.2.1"), port=4789, ttl=64)
    link = rtlink.parse_link(rtlink.create_link("x5001", "vxlan", data, mac=MAC, mtu_bytes=1450).body)
    assert (link.vni, link.vtep, link.mtu_bytes, link.master_index) == (5001, IPv4Address("192.0.2.1"), 1450, None)
    assert struct.pack("!H", 4789) in data, "the port goes in network order"
    assert struct.pack("=HHB", 5, 5, 64) in data, "IFLA_VXLAN_TTL"
    assert struct.pack("=HHB", 5, 7, 0) in data, "IFLA_VXLAN_LEARNING: by itself it is on"


def test_a_devices_ipv4_settings_go_in_one_message() -> None:
    message = rtlink.set_ipv4(7, {"rp_filter": 1, "proxy_arp": 1, "send_redirects": 0})
    nested = struct.pack("=HHi", 8, 8, 1) + struct.pack("=HHi", 8, 3, 1) + struct.pack("=HHi", 8, 6, 0)
    assert message.body.endswith(nested)
    assert set(rtlink.IPV4_SETTINGS) == {
        "forwarding",
        "proxy_arp",
        "rp_filter",
        "accept_redirects",
        "send_redirects",
    }


@pytest.mark.parametrize(
    ("prefix", "index", "via", "metric", "label"),
    [
        ("10.1.1.11/32", 7, None, 0, None),
        ("0.0.0.0/0", None, None, 4278198272, None),
        ("10.1.1.12/32", 8, "192.0.2.2", 0, None),
        ("fd00:1::12/128", 8, "::ffff:192.0.2.2", 1024, None),
        ("::/0", None, None, 4278198272, None),
        ("10.1.1.13/32", 8, None, 0, 30),
        ("fd00:1::13/128", 8, None, 1024, 1048575),
    ],
)
def test_a_route_is_read_back_as_it_was_asked_for(
    prefix: str, index: int | None, via: str | None, metric: int, label: int | None
) -> None:
    network, gateway = ip_network(prefix), None if via is None else ip_address(via)
    frame = rtroute.route_frame(
        rtroute.NEW_ROUTE,
        0,
        version=network.version,
        length=network.prefixlen,
        table=100005,
        protocol=80,
        metric=metric,
        index=index,
        via=gateway,
        label=label,
    )
    assert rtroute.parse_route(frame.about(network).body) == RouteEntry(
        table=100005,
        protocol=80,
        kind=rtroute.UNREACHABLE if index is None else rtroute.UNICAST,
        prefix=network,
        index=index,
        gateway=gateway,
        metric=metric,
        labels=() if label is None else (label,),
    )


@pytest.mark.parametrize("prefix", ["10.1.1.100/32", "0.0.0.0/0", "fd00:1::100/128"])
def test_a_route_with_several_next_hops_is_read_back_as_it_was_asked_for(prefix: str) -> None:
    network = ip_network(prefix)
    via = [ip_address("10.1.1.11" if network.version == 4 else each) for each in ("fd00:1::11", "::ffff:192.0.2.2")]
    hops = [(7, via[0], None, 1), (8, via[1], None, 3), (9, None, 30, 256)]
    message = rtroute.multipath_route(
        rtroute.NEW_ROUTE, 0, network, table=200005, protocol=80, metric=1024, hops=hops, source=via[0]
    )
    assert rtroute.parse_route(message.body) == RouteEntry(
        table=200005,
        protocol=80,
        kind=rtroute.UNICAST,
        prefix=network,
        index=None,
        gateway=None,
        metric=1024,
        source=via[0],
        hops=(HopEntry(7, via[0]), HopEntry(8, via[1], weight=3), HopEntry(9, None, (30,), 256)),
    )


def test_next_hops_are_packed_as_ip_route_does() -> None:
    """The bytes of `nexthop via 10.1.1.11 dev <7> onlink nexthop dev <8> weight 3`."""
    hops = [(7, ip_address("10.1.1.11"), None, 1), (8, None, None, 3)]
    network = ip_network("10.1.1.100/32")
    message = rtroute.multipath_route(rtroute.NEW_ROUTE, 0, network, table=5, protocol=80, metric=0, hops=hops)
    first = bytes.fromhex("1000 04 00 07000000 0800 0500 0a01010b")
    assert message.body.endswith(bytes.fromhex("1c00 0900") + first + bytes.fromhex("0800 00 02 08000000"))
    gone = rtroute.multipath_route(rtroute.DEL_ROUTE, 0, network, table=5, protocol=80, metric=0, hops=hops)
    assert rtroute.parse_route(gone.body).hops == (), "whatever its next hops are"


def test_a_rule_by_mark_leads_to_a_table_beyond_the_first_255() -> None:
    message = rtroute.rule(rtroute.NEW_RULE, 0, 4, 900, table=200005, mark=5, protocol=80)
    assert rtroute.parse_rule(message.body) == RuleEntry(900, 200005, is_l3mdev=False, is_plain=True, mark=5)


def test_an_address_that_is_not_preferred_is_deprecated_from_the_start_and_for_ever() -> None:
    plain = rtroute.address(rtroute.NEW_ADDRESS, 0, 9, ip_interface("fd00:1::2/128"))
    other = rtroute.address(rtroute.NEW_ADDRESS, 0, 9, ip_interface("fd00:1::2/128"), is_preferred=False)
    assert other.body == plain.body + struct.pack("=HHIIII", 20, 6, 0, 0xFFFFFFFF, 0, 0)
    listed = bytes([plain.body[0], plain.body[1], 0x80 | 0x20, plain.body[3]]) + plain.body[4:]
    assert rtroute.parse_address(listed) == AddressEntry(9, ip_address("fd00:1::2"), 128, is_preferred=False)


@pytest.mark.parametrize(("prefix", "source"), [("10.1.1.11/32", "10.1.1.1"), ("fd00:1::11/128", "fd00:1::1")])
def test_a_route_says_whom_the_host_speaks_as(prefix: str, source: str) -> None:
    frame = rtroute.route_frame(
        rtroute.NEW_ROUTE,
        0,
        version=ip_network(prefix).version,
        length=ip_network(prefix).prefixlen,
        table=100005,
        protocol=80,
        metric=0,
        index=7,
        via=None,
        source=ip_address(source),
    )
    assert rtroute.parse_route(frame.about(ip_network(prefix)).body).source == ip_address(source)


def test_a_labels_route_is_read_back_as_it_was_asked_for() -> None:
    """The bytes of `ip -f mpls route add 100005 via inet 192.0.0.8 dev <7>`."""
    via = IPv4Address("192.0.0.8")
    message = rtroute.label_route(rtroute.NEW_ROUTE, 0, 100005, protocol=80, index=7, via=via)
    assert message.body[:12] == bytes([28, 20, 0, 0, 254, 80, 0, 1, 0, 0, 0, 0])
    assert b"\x08\x00\x01\x00\x18\x6a\x51\x00" in message.body, "the label, and that it is the last"
    assert b"\x0a\x00\x12\x00\x02\x00\xc0\x00\x00\x08" in message.body, "the next hop and its family"
    assert rtroute.parse_label_route(message.body) == LabelEntry(
        label=100005, protocol=80, index=7, via=via, is_swap=False
    )


def test_a_tunnel_for_mpls_has_its_far_end_its_protocol_and_its_udp_port() -> None:
    local, remote = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.9")
    data = rtlink.ipip_data(local, remote, protocol=137, ttl=64, port=6635)
    link = rtlink.parse_link(rtlink.create_link("mc0000209", "ipip", data, mtu_bytes=1504).body)
    assert link.tunnel == IpTunnel(local=local, remote=remote, protocol=137, port=6635)
    assert (link.vtep, link.mtu_bytes) == (None, 1504)


def test_a_pair_of_devices_is_asked_for_with_both_names() -> None:
    message = rtlink.create_link("i5", "veth", rtlink.veth_data("l5", 1500), mac=MAC, mtu_bytes=1500, master=9)
    link = rtlink.parse_link(message.body)
    assert (link.name, link.kind, link.mac, link.master_index) == ("i5", "veth", MAC, 9)
    assert b"\x07\x00\x03\x00l5\x00\x00" in message.body


def test_neighbours_far_ends_addresses_and_rules_are_read_back_as_they_were_asked_for() -> None:
    guest = rtroute.neighbour(rtroute.NEW_NEIGHBOUR, 0, 7, ip_address("fd00:1::11"), MAC)
    assert rtroute.parse_neighbour(guest.body) == NeighbourEntry(7, rtroute.PERMANENT, ip_address("fd00:1::11"), MAC)
    end = rtroute.far_end(rtroute.NEW_NEIGHBOUR, 0, 8, IPv4Address("192.0.2.2"), MAC)
    assert rtroute.parse_neighbour(end.body) == NeighbourEntry(8, rtroute.PERMANENT, ip_address("192.0.2.2"), MAC)
    local = rtroute.address(rtroute.NEW_ADDRESS, 0, 9, ip_interface("fe80::1/64"))
    assert rtroute.parse_address(local.body) == AddressEntry(9, ip_address("fe80::1"), 64)
    rule = rtroute.rule(rtroute.NEW_RULE, 0, 4, 1000, is_l3mdev=True, protocol=2)
    assert rtroute.parse_rule(rule.body) == RuleEntry(priority=1000, table=0, is_l3mdev=True, is_plain=True)


def test_an_acknowledgement_says_the_errno() -> None:
    assert netlink.parse_error(struct.pack("=i", 0)) == 0
    assert netlink.parse_error(struct.pack("=i", -17)) == 17


def test_a_proxy_delay_is_read_back_and_one_of_no_device_is_passed_over() -> None:
    assert rtlink.parse_proxy_delay(rtlink.set_proxy_delay(7, 800).body) == (7, 800)
    assert rtlink.parse_proxy_delay(rtlink.delays_request()) is None


def test_a_damaged_attribute_ends_a_message_and_nothing_hangs() -> None:
    body = rtlink.delete_link(7).body + struct.pack("=HH", 0, 3)
    with pytest.raises(KeyError):
        rtlink.parse_link(body)
    assert Message(0, 0, body).body == body
