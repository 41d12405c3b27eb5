"""Pure: DHCP options as TF has them, by name or number and as text → bytes.

Called by `guest`. TF keeps options on interfaces, subnets and ipams in one list for both versions: a number or a plain
name means DHCPv4, a name that begins with `v6-` means DHCPv6. Names and the form of each value are those of TF's agent
(IANA's registries of BOOTP and DHCPv6 options); numbers that are not in the table take text, or bytes in decimal from
`dhcp_option_value_bytes`. Options that carry the protocol itself are not anybody's to set.

A value of bytes is decimal numbers, blanks between them, as TF's schema says; TF's agent copies the characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from types import MappingProxyType
from typing import Final, TypeAlias

from vrouter_vm.model import DhcpOption

Coded: TypeAlias = tuple[int, bytes]
"""Code and data of an option."""

ROUTERS: Final = 3
DNS: Final = 6
HOST_NAME: Final = 12
DOMAIN_NAME: Final = 15
MTU: Final = 26
LEASE_TIME: Final = 51
CLASSLESS_ROUTES: Final = 121

DNS6: Final = 23
DOMAINS6: Final = 24

_PROTOCOL4: Final = frozenset({0, 1, 28, 50, 52, 53, 54, 55, 57, 61, 80, 81, 82, 90, 255})
"""The server's own, the client's, the relay's: padding, mask and broadcast address, message type and the like."""

_LABEL_BYTES: Final = 63
_NAME_BYTES: Final = 255
_PREFIX4_BITS: Final = 32
_NUMBER: Final = re.compile(r"[0-9]+")


def encode4(levels: Iterable[Iterable[DhcpOption]], problems: list[str]) -> dict[int, bytes]:
    """Return the DHCPv4 options of several lists by code; a code that an earlier list has is not taken from a later.

    What cannot be encoded is left out and said in `problems`.
    """
    return _encode(levels, problems, table=_TABLE4, reserved=_PROTOCOL4, is_ours=lambda name: not _is_v6(name))


def encode6(levels: Iterable[Iterable[DhcpOption]], problems: list[str]) -> dict[int, bytes]:
    """Return the DHCPv6 options of several lists by code, as `encode4` does."""
    return _encode(levels, problems, table=_TABLE6, reserved=frozenset(), is_ours=_is_v6)


def take_addresses(coded: dict[int, bytes], code: int) -> tuple[IPv4Address, ...]:
    """Remove an option of IPv4 addresses from `coded` and return them."""
    data = coded.pop(code, b"")
    return tuple(IPv4Address(data[at : at + 4]) for at in range(0, len(data), 4))


def take_addresses6(coded: dict[int, bytes]) -> tuple[IPv6Address, ...]:
    """Remove the resolvers from DHCPv6 options and return them."""
    data = coded.pop(DNS6, b"")
    return tuple(IPv6Address(data[at : at + 16]) for at in range(0, len(data), 16))


def take_names6(coded: dict[int, bytes]) -> tuple[str, ...]:
    """Remove the search list from DHCPv6 options and return it."""
    return decode_names(coded.pop(DOMAINS6, b""))


def take_text(coded: dict[int, bytes], code: int) -> str:
    """Remove an option of text from `coded` and return it; empty when there is none."""
    return coded.pop(code, b"").decode(errors="replace")


def take_prefixes(coded: dict[int, bytes]) -> tuple[IPv4Network, ...]:
    """Remove the classless routes from `coded` and return their prefixes."""
    return tuple(prefix for prefix, _ in decode_routes(coded.pop(CLASSLESS_ROUTES, b"")))


def encode_routes(routes: Iterable[tuple[IPv4Network, IPv4Address]]) -> bytes:
    """Return classless routes as RFC 3442 has them: prefix length, its significant bytes, next hop."""
    return b"".join(
        bytes([prefix.prefixlen]) + prefix.network_address.packed[: (prefix.prefixlen + 7) // 8] + next_hop.packed
        for prefix, next_hop in routes
    )


def decode_routes(data: bytes) -> Iterator[tuple[IPv4Network, IPv4Address]]:
    """Yield the classless routes in `data`, which `encode_routes` has made."""
    at = 0
    while at < len(data):
        length = (data[at] + 7) // 8
        network = data[at + 1 : at + 1 + length].ljust(4, b"\0")
        yield IPv4Network((network, data[at])), IPv4Address(data[at + 1 + length : at + 5 + length])
        at += 5 + length


def encode_name(name: str) -> bytes:
    """Return a domain name as DNS has it on the wire (RFC 1035, 3.1), uncompressed; raises ValueError."""
    labels = [label.encode("idna") if not label.isascii() else label.encode() for label in name.rstrip(".").split(".")]
    if not all(0 < len(label) <= _LABEL_BYTES for label in labels):
        raise ValueError(f"{name!r} is no domain name")
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(encoded) > _NAME_BYTES:
        raise ValueError(f"{name!r} is too long for a domain name")
    return encoded


def decode_names(data: bytes) -> tuple[str, ...]:
    """Return the names in `data`, which `encode_name` has made, one after the other."""
    names, labels, at = [], [], 0
    while at < len(data):
        length = data[at]
        if length:
            labels.append(data[at + 1 : at + 1 + length].decode(errors="replace"))
        else:
            names.append(".".join(labels))
            labels = []
        at += 1 + length
    return tuple(names)


def _is_v6(name: str) -> bool:
    return name.lower().startswith("v6-")


def _encode(
    levels: Iterable[Iterable[DhcpOption]],
    problems: list[str],
    *,
    table: Mapping[str, _Known],
    reserved: frozenset[int],
    is_ours: Callable[[str], bool],
) -> dict[int, bytes]:
    coded: dict[int, bytes] = {}
    for option in (option for level in levels for option in level if is_ours(option.name)):
        try:
            known = _known(option.name, table)
            if known.code in reserved:
                raise ValueError("it belongs to the protocol and cannot be set")  # noqa: TRY301 - one place says it
            if known.code not in coded:
                coded[known.code] = _data(known, option)
        except ValueError as error:
            problems.append(f"DHCP option {option.name!r} is not told: {error}")
    return coded


def _known(name: str, table: Mapping[str, _Known]) -> _Known:
    known = table.get(name.lower())
    if known is None and _NUMBER.fullmatch(name) and int(name) <= 255:  # noqa: PLR2004 - RFC 2132: one byte
        return _Known(code=int(name), encode=_text)
    if known is None:
        raise ValueError("there is no option of that name")
    return known


def _data(known: _Known, option: DhcpOption) -> bytes:
    """Return the data; the decimal bytes count where there is no text."""
    if not option.value and option.value_bytes:
        return _octets(option.value_bytes)
    return known.encode(option.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    code: int
    encode: Callable[[str], bytes]


def _number(length: int, *, is_signed: bool = False) -> Callable[[str], bytes]:
    def encode(value: str) -> bytes:
        try:
            return int(value).to_bytes(length, "big", signed=is_signed and int(value) < 0)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{value!r} is no number of {length * 8} bits") from error

    return encode


def _several(one: Callable[[str], bytes], *, least: int = 1, multiple: int = 1) -> Callable[[str], bytes]:
    def encode(value: str) -> bytes:
        parts = value.replace(",", " ").split()
        if len(parts) < least or len(parts) % multiple:
            raise ValueError(f"{value!r} has {len(parts)} values")
        return b"".join(map(one, parts))

    return encode


def _address4(value: str) -> bytes:
    return IPv4Address(value.strip()).packed


def _address6(value: str) -> bytes:
    return IPv6Address(value.strip()).packed


def _text(value: str) -> bytes:
    return value.encode()


def _nothing(_: str) -> bytes:
    return b""


def _then(rest: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """One byte as a number, then `rest`."""

    def encode(value: str) -> bytes:
        first, _, after = value.strip().partition(" ")
        return _byte(first) + rest(after)

    return encode


def _routes(value: str) -> bytes:
    """Pairs of prefix and next hop."""
    parts = value.replace(",", " ").split()
    if not parts or len(parts) % 2:
        raise ValueError(f"{value!r} is no list of prefixes, each with a next hop")
    return encode_routes(
        (IPv4Network(prefix, strict=False), IPv4Address(next_hop))
        for prefix, next_hop in zip(parts[::2], parts[1::2], strict=True)
    )


_byte: Final = _number(1)
_octets: Final = _several(_byte)

_KINDS: Final[Mapping[str, Callable[[str], bytes]]] = {
    "byte": _byte,
    "bytes": _octets,
    "int": _number(4, is_signed=True),
    "ip": _address4,
    "ip6": _address6,
    "ips": _several(_address4),
    "ips0": _several(_address4, least=0),
    "ips6": _several(_address6),
    "name": encode_name,
    "names": _several(encode_name),
    "none": _nothing,
    "pairs": _several(_address4, least=2, multiple=2),
    "routes": _routes,
    "byte+ips": _then(_several(_address4)),
    "byte+text": _then(_text),
    "byte+name": _then(encode_name),
    "text": _text,
    "u16": _number(2),
    "u16s": _several(_number(2)),
    "u32": _number(4),
}

_OPTIONS4: Final = """
int: 2 time-offset
ips: 3 routers, 4 time-servers, 5 name-servers, 6 domain-name-servers, 7 log-servers, 8 quote-servers, 9 lpr-servers,
 10 impress-servers, 11 resource-location-servers, 41 nis-servers, 42 ntp-servers, 44 netbios-name-servers,
 45 netbios-dd-server, 48 font-servers, 49 x-display-manager, 65 nisplus-servers, 69 smtp-server, 70 pop-server,
 71 nntp-server, 72 www-server, 73 finger-server, 74 irc-server, 75 streettalk-server,
 76 streettalk-directory-assistance-server, 85 nds-servers, 92 associated-ip, 95 ldap-servers,
 112 netinfo-server-address, 128 tftp-server, 136 pana-agent, 138 capwap-ac-v4, 142 andsf-servers,
 150 tftp-server-address
ips0: 68 mobile-ip-home-agent
ip: 16 swap-server, 32 router-solicitation-address, 118 subnet-selection
pairs: 21 policy-filter, 33 static-routes
text: 12 host-name, 14 merit-dump, 15 domain-name, 17 root-path, 18 extension-path, 40 nis-domain,
 43 vendor-encapsulated-options, 47 netbios-scope, 56 dhcp-message, 60 class-id, 62 nwip-domain, 64 nisplus-domain,
 66 tftp-server-name, 67 bootfile-name, 97 machine-id, 98 user-auth, 100 ieee-1003-1-tz, 101 ref-tz-db,
 113 netinfo-server-tag, 114 default-url, 129 pxe-vendor-specific-129, 130 pxe-vendor-specific-130,
 131 pxe-vendor-specific-131, 132 pxe-vendor-specific-132, 133 pxe-vendor-specific-133, 134 pxe-vendor-specific-134,
 135 pxe-vendor-specific-135, 209 config-file, 210 path-prefix
u16: 13 boot-size, 22 max-dgram-reassembly, 26 interface-mtu, 93 system-architecture
u16s: 25 path-mtu-plateau-table, 117 name-search
u32: 24 path-mtu-aging-timeout, 35 arp-cache-timeout, 38 tcp-keepalive-interval, 51 dhcp-lease-time,
 58 dhcp-renewal-time, 59 dhcp-rebinding-time, 91 dhcp-client-last-time, 152 dhcp-base-time,
 153 dhcp-state-start-time, 154 dhcp-query-start-time, 155 dhcp-query-end-time, 208 dhcp-pxe-magic, 211 reboot-time
byte: 19 ip-forwarding, 20 non-local-source-routing, 23 default-ip-ttl, 27 all-subnets-local,
 29 perform-mask-discovery, 30 mask-supplier, 31 router-discovery, 34 trailer-encapsulation,
 36 ieee802-3-encapsulation, 37 default-tcp-ttl, 39 tcp-keepalive-garbage, 46 netbios-node-type, 116 auto-configure,
 156 dhcp-state, 157 data-source
bytes: 63 nwip-suboptions, 77 user-class, 83 storage-ns, 86 nds-tree-name, 87 nds-context, 88 bcms-controller-names,
 89 bcms-controller-address, 94 interface-id, 99 geoconf-civic, 120 sip-servers, 122 dhcp-ccc, 123 dhcp-geoconf,
 124 vendor-class-identifier, 125 vivso, 137 lost-server, 139 dhcp-mos, 140 dhcp-fqdn-mos, 141 sip-ua-config-domain,
 144 dhcp-geoloc, 145 force-renew-nonce-cap, 146 rdnss-selection, 158 pcp-server, 212 dhcp-6rd,
 213 dhcp-access-domain, 220 subnet-allocation
byte+ips: 78 slp-directory-agent
byte+text: 79 slp-service-scope, 151 status-code, 221 dhcp-vss
names: 119 domain-search
routes: 121 classless-static-routes
text: 1 subnet-mask, 28 broadcast-address, 50 dhcp-requested-address, 52 dhcp-option-overload, 53 dhcp-message-type,
 54 dhcp-server-identifier, 55 dhcp-parameter-request-list, 57 dhcp-max-message-size, 61 dhcp-client-identifier,
 80 rapid-commit, 81 client-fqdn, 90 dhcp-auth
"""

_OPTIONS6: Final = """
bytes: 15 v6-user-class, 16 v6-vendor-class, 17 v6-vendor-opts, 36 v6-geoconf-civic, 54 v6-address-mos,
 55 v6-fqdn-mos, 56 v6-ntp-server, 60 v6-bootfile-param, 62 v6-nii, 63 v6-geolocation, 74 v6-rdnss-selection,
 84 v6-addrsel
byte+name: 39 v6-client-fqdn
ips6: 22 v6-sip-server-addresses, 23 v6-name-servers, 27 v6-nis-servers, 28 v6-nisp-servers, 31 v6-sntp-servers,
 34 v6-bcms-server-a, 40 v6-pana-agent, 52 v6-capwap-ac, 86 v6-pcp-server, 143 v6-address-andsf
names: 21 v6-sip-server-names, 24 v6-domain-search, 33 v6-bcms-server-d, 58 v6-sip-ua-cs-list
name: 29 v6-nis-domain-name, 30 v6-nisp-domain-name, 51 v6-lost, 57 v6-access-domain, 64 v6-aftr-name,
 65 v6-erp-local-domain-name
text: 41 v6-posiz-timezone, 42 v6-tzdc-timezone, 59 v6-bootfile-url
u16s: 61 v6-client-arch-type
u32: 32 v6-info-refresh-time, 82 v6-sol-max-rt, 83 v6-inf-max-rt
"""


def _table(text: str, *, has_numbers: bool) -> Mapping[str, _Known]:
    """Return what is known by name, and by number too where numbers may be used."""
    table: dict[str, _Known] = {}
    for line in text.strip().replace("\n ", " ").splitlines():
        kind, _, listed = line.partition(": ")
        for entry in listed.split(", "):
            number, name = entry.split()
            table[name] = _Known(code=int(number), encode=_KINDS[kind])
            if has_numbers:
                table[number] = table[name]
    return MappingProxyType(table)


_TABLE4: Final = _table(_OPTIONS4, has_numbers=True)
_TABLE6: Final = _table(_OPTIONS6, has_numbers=False)
