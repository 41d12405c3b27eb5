"""Pure: rtnetlink messages about traffic control (pkt_cls.h, tc_act/): filters that send packets on by UDP.

Called by `adapter`, for the pair of devices of MPLS over UDP. On its way out of the Ethernet of that pair a packet with
one MAC gets, as metadata, where it goes; then it goes to the bareudp device, which takes from the metadata what it
writes before the packet (Documentation/networking/bareudp.rst). One filter per far end, its handle the far end's
address.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from vrouter_vm.kernel.netlink import (
    CREATE,
    U32,
    Message,
    attribute,
    attributes,
    format_mac,
    pack_mac,
)

NEW_QDISC: Final = 36
NEW_FILTER, DEL_FILTER, GET_FILTER = 44, 45, 46
NEW_ACTION: Final = 48

_TC: Final = struct.Struct("=BxxxiIII")
_ACTION_HEADER: Final = struct.Struct("=Bxxx")
_CLSACT_HANDLE, _CLSACT, _CLSACT_EGRESS = 0xFFFF0000, 0xFFFFFFF1, 0xFFFFFFF3
_PRIORITY: Final = 1
_ETH_P_MPLS_UC: Final = struct.pack("!H", 0x8847)
_INFO: Final = _PRIORITY << 16 | int(struct.unpack("=H", _ETH_P_MPLS_UC)[0])

_KIND, _OPTIONS = 1, 2
_FLOWER_ACTIONS, _FLOWER_MAC, _FLOWER_MAC_MASK, _FLOWER_ETH_TYPE, _FLOWER_FLAGS = 3, 4, 5, 8, 22
_SKIP_HARDWARE: Final = U32.pack(1)
_WHOLE_MAC: Final = bytes([0xFF] * 6)

_GENERIC: Final = struct.Struct("=IIiii")  # index, capabilities, what comes then, two counts of references
_PARAMETERS: Final = 2
_PIPE, _STOLEN = 3, 4
_TUNNEL_SOURCE, _TUNNEL_TARGET, _TUNNEL_NO_CHECKSUM, _TUNNEL_TTL = 3, 4, 10, 13
_TUNNEL_SET: Final = struct.pack("=i", 1)
_REDIRECT: Final = struct.Struct("=iI")
_OUT_OF: Final = 1  # TCA_EGRESS_REDIR


@dataclass(frozen=True, slots=True)
class FarEnd:
    """What a filter does: packets to `mac` go by UDP from `local` to the address that is its handle, `vtep`.

    `mac` empty: it does something else.
    """

    vtep: IPv4Address
    mac: str
    local: IPv4Address | None


def probe_action(kind: str) -> Message:
    """Return a request for an action of a kind without saying what it should do: refused as invalid where the kernel
    has that kind, else as not there.
    """
    return Message(NEW_ACTION, CREATE, _ACTION_HEADER.pack(0) + attribute(1, _numbered([attribute(1, _text(kind))])))


def hook(index: int) -> Message:
    """Return what lets a device have filters; nothing changes where it has."""
    return Message(
        NEW_QDISC, CREATE, _TC.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0) + attribute(_KIND, _text("clsact"))
    )


def set_far_end(index: int, mac: str, *, vtep: IPv4Address, local: IPv4Address, through: int, ttl: int) -> Message:
    """Return what sends packets to `mac` on the device on to a VTEP, by the bareudp device `through`; in place of what
    there is for that VTEP. The UDP checksum is zero, as TF's vRouters send it (RFC 7510, 3).
    """
    source, target = attribute(_TUNNEL_SOURCE, local.packed), attribute(_TUNNEL_TARGET, vtep.packed)
    how = attribute(_TUNNEL_NO_CHECKSUM, bytes([1])) + attribute(_TUNNEL_TTL, bytes([ttl]))
    parameters = attribute(_PARAMETERS, _GENERIC.pack(0, 0, _PIPE, 0, 0) + _TUNNEL_SET)
    redirect = attribute(_PARAMETERS, _GENERIC.pack(0, 0, _STOLEN, 0, 0) + _REDIRECT.pack(_OUT_OF, through))
    actions = _numbered([_action("tunnel_key", parameters + source + target + how), _action("mirred", redirect)])
    options = b"".join(
        (
            attribute(_FLOWER_MAC, pack_mac(mac)),
            attribute(_FLOWER_MAC_MASK, _WHOLE_MAC),
            attribute(_FLOWER_ETH_TYPE, _ETH_P_MPLS_UC),
            attribute(_FLOWER_FLAGS, _SKIP_HARDWARE),
            attribute(_FLOWER_ACTIONS, actions),
        )
    )
    return Message(NEW_FILTER, CREATE, _filter(index, vtep) + attribute(_OPTIONS, options))


def delete_far_end(index: int, vtep: IPv4Address) -> Message:
    """Return what deletes the filter for a VTEP."""
    return Message(DEL_FILTER, 0, _filter(index, vtep))


def filters_request(index: int) -> bytes:
    """Return the body of a request for all filters on the way out of a device."""
    return _TC.pack(0, index, 0, _CLSACT_EGRESS, 0)


def parse_far_end(body: bytes, *, through: int, ttl: int) -> FarEnd | None:
    """Return a filter of a dump, None for what is no filter with a handle of ours."""
    _, _, handle, _, info = _TC.unpack_from(body)
    found = attributes(body, _TC.size)
    if info != _INFO or not handle or _OPTIONS not in found or found.get(_KIND) != _text("flower"):
        return None
    vtep = IPv4Address(handle)
    options = attributes(found[_OPTIONS])
    mac, is_whole = options.get(_FLOWER_MAC, b""), options.get(_FLOWER_MAC_MASK) == _WHOLE_MAC
    actions = [attributes(each) for each in attributes(options.get(_FLOWER_ACTIONS, b"")).values()]
    kinds = [action.get(_KIND) for action in actions]
    if not is_whole or kinds != [_text("tunnel_key"), _text("mirred")]:
        return FarEnd(vtep, "", None)
    tunnel, redirect = (attributes(action.get(_OPTIONS, b"")) for action in actions)
    is_right = (
        tunnel.get(_TUNNEL_TARGET) == vtep.packed
        and tunnel.get(_TUNNEL_NO_CHECKSUM) == bytes([1])
        and tunnel.get(_TUNNEL_TTL) == bytes([ttl])
        and tunnel.get(_PARAMETERS, b"")[_GENERIC.size :] == _TUNNEL_SET
        and redirect.get(_PARAMETERS, b"")[_GENERIC.size :] == _REDIRECT.pack(_OUT_OF, through)
    )
    return FarEnd(vtep, format_mac(mac) if is_right else "", IPv4Address(tunnel.get(_TUNNEL_SOURCE, bytes(4))))


def _filter(index: int, vtep: IPv4Address) -> bytes:
    return _TC.pack(0, index, int(vtep), _CLSACT_EGRESS, _INFO) + attribute(_KIND, _text("flower"))


def _action(kind: str, options: bytes) -> bytes:
    return attribute(_KIND, _text(kind)) + attribute(_OPTIONS, options)


def _numbered(members: Iterable[bytes]) -> bytes:
    return b"".join(attribute(number, member) for number, member in enumerate(members, start=1))


def _text(text: str) -> bytes:
    return text.encode() + b"\0"
