"""Pure: how large a packet to another host may be. Called by `wanted.tunnels`, by `paths`, which tries it, and
by what tells guests.
"""

from __future__ import annotations

from typing import Final

from vrouter_vm.kernel_model import Underlay

VXLAN_OVERHEAD_BYTES: Final = 50
"""Outer IPv4 and UDP headers, VXLAN header, and the Ethernet header inside (RFC 7348, 5)."""
MPLS_OVERHEAD_BYTES: Final = 28
"""Outer IPv4 and UDP headers (RFC 7510, 3); the device's MTU counts the label, the route's does not."""
LABEL_BYTES: Final = 4
GUEST_MTU_BYTES: Final = 1500


def mtu_of(underlay: Underlay) -> int:
    """Return the MTU of the tunnels: packets that do not fit are answered, not fragmented (RFC 7348, 4.3)."""
    return min(GUEST_MTU_BYTES, underlay.mtu_bytes - VXLAN_OVERHEAD_BYTES)


def mpls_mtu_of(underlay: Underlay) -> int:
    """Return the MTU of the devices for MPLS over UDP, the label included."""
    return min(GUEST_MTU_BYTES + LABEL_BYTES, underlay.mtu_bytes - MPLS_OVERHEAD_BYTES)
