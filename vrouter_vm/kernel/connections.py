"""The connections that guests have open, as the kernel tracks them; read when somebody asks.

Called by the agent's page `/flows`. A network's connections are those of its conntrack zone. Packets and bytes are
counted only where the kernel does (net.netfilter.nf_conntrack_acct).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from itertools import chain, islice
from typing import Any, Final

from tf_reconcile.errors import Transient
from vrouter_vm import names
from vrouter_vm.model import IpAddress

MOST_CONNECTIONS: Final = 5000
"""How many are told at once; asking for one guest's needs no more."""

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_SEEN_REPLY, _OFFLOADED = 1 << 1, 1 << 14  # enum ip_conntrack_status of linux/netfilter/nf_conntrack_common.h
_TCP_STATES: Final = (
    "none", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close",
)  # fmt: skip
"""enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h"""
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection, in the direction of its first packet. Ports are None where the protocol has none.

    `state`: TCP's, else "replied" or "unreplied"; "offloaded" when it is in the flowtable, and the kernel does not say.
    Packets and bytes are of both directions, None where not counted. `expires_s`: seconds until it is forgotten if
    nothing comes, None when it is offloaded.
    """

    network_id: int
    protocol: str
    source: str
    source_port: int | None
    destination: str
    destination_port: int | None
    state: str
    expires_s: int | None
    packets: int | None
    bytes: int | None


def parse_connection(message: Any) -> Connection | None:
    """Return a connection from a ctnetlink message, or None when it is in no zone of ours."""
    zone = message.get_attr("CTA_ZONE") or 0
    if zone not in names.NETWORK_IDS:
        return None
    first = message.get_attr("CTA_TUPLE_ORIG")
    addresses, protocol = first.get_attr("CTA_TUPLE_IP"), first.get_attr("CTA_TUPLE_PROTO")
    number = protocol.get_attr("CTA_PROTO_NUM")
    version = "V4" if message["nfgen_family"] == socket.AF_INET else "V6"
    counted = [message.get_attr(name) for name in ("CTA_COUNTERS_ORIG", "CTA_COUNTERS_REPLY")]
    return Connection(
        network_id=zone,
        protocol=_PROTOCOLS.get(number, str(number)),
        source=str(ip_address(addresses.get_attr(f"CTA_IP_{version}_SRC"))),
        source_port=protocol.get_attr("CTA_PROTO_SRC_PORT"),
        destination=str(ip_address(addresses.get_attr(f"CTA_IP_{version}_DST"))),
        destination_port=protocol.get_attr("CTA_PROTO_DST_PORT"),
        state=_state(message),
        expires_s=message.get_attr("CTA_TIMEOUT"),
        packets=_sum(counted, "CTA_COUNTERS_PACKETS"),
        bytes=_sum(counted, "CTA_COUNTERS_BYTES"),
    )


def read_connections(*, network_id: int | None = None, address: IpAddress | None = None) -> Iterator[Connection]:
    """Yield the connections of all our networks, or of that one, or those from and to that address.

    Raises `Transient` when the kernel does not tell.
    """
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as in `_dump`

    try:
        for message in _dump(address):
            flow = parse_connection(message)
            if flow is None or network_id not in {None, flow.network_id}:
                continue
            if address is None or str(address) in {flow.source, flow.destination}:
                yield flow
    except (NetlinkError, OSError) as error:
        raise Transient("kernel", "list", "connections", str(error)) from error


def _dump(address: IpAddress | None) -> Iterator[Any]:
    from pyroute2 import NFCTSocket  # noqa: PLC0415 - a second of imports, for those who ask
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple  # noqa: PLC0415 - as above

    families = _FAMILIES.values() if address is None else [_FAMILIES[address.version]]
    for family in families:
        with NFCTSocket(nfgen_family=family) as conntrack:
            if address is None or family == socket.AF_INET6:  # Linux's own filter leaves out what matches there
                yield from conntrack.dump()
                continue
            sent = NFCTAttrTuple(family=family, saddr=str(address))
            received = NFCTAttrTuple(family=family, daddr=str(address))
            yield from chain(conntrack.dump(tuple_orig=sent), conntrack.dump(tuple_orig=received))


def connections_page(query: Mapping[str, str]) -> dict[str, Any]:
    """Return what `/flows` shows, by the arguments `vrf` and `address`, at most `MOST_CONNECTIONS` connections.

    Raises `ValueError` for an argument that is wrong, `Transient` when the kernel does not tell.
    """
    unknown = query.keys() - {"vrf", "address"}
    if unknown:
        raise ValueError(f"unknown argument {min(unknown)}; known: vrf, address")
    network_id = None
    if "vrf" in query and (network_id := names.parse_vrf(query["vrf"])) is None:
        raise ValueError(f"vrf: {query['vrf']!r} is no VRF of ours; allowed: a name such as v5")
    address = ip_address(query["address"]) if "address" in query else None
    found: Iterable[Connection] = read_connections(network_id=network_id, address=address)
    flows = list(islice(found, MOST_CONNECTIONS + 1))
    return {
        "flows": [{"vrf": names.format_vrf(flow.network_id), **asdict(flow)} for flow in flows[:MOST_CONNECTIONS]],
        "is_cut": len(flows) > MOST_CONNECTIONS,
    }


def _state(message: Any) -> str:
    status = message.get_attr("CTA_STATUS") or 0
    if status & _OFFLOADED:
        return "offloaded"
    information = message.get_attr("CTA_PROTOINFO")
    tcp = information.get_attr("CTA_PROTOINFO_TCP") if information else None
    number = tcp.get_attr("CTA_PROTOINFO_TCP_STATE") if tcp else None
    if number is not None:
        return _TCP_STATES[number] if number < len(_TCP_STATES) else str(number)
    return "replied" if status & _SEEN_REPLY else "unreplied"


def _sum(counted: Iterable[Any], name: str) -> int | None:
    numbers = [one.get_attr(name) for one in counted if one is not None]
    return sum(numbers) if numbers else None
