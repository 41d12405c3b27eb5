"""The kernel's filter, run by an interpreter of classic BPF: what it lets through is what can be answered."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.fakes.guest_frames import advertisement, arp, dhcp4_frame, dhcp6_frame, solicitation
from tests.fakes.guests import dhcp6_message
from vrouter_vm.guest_services.trunk_socket import MOST_MUTED, filter_program


def passes(frame: bytes, *, vlan: int = 101, muted: Collection[int] = ()) -> bool:  # noqa: PLR0912 - one branch per instruction
    """Run the program as the kernel does (Documentation/networking/filter.rst)."""
    program, accumulator, index, at = filter_program(muted), 0, 0, 0
    while True:
        code, if_true, if_false, constant = program[at]
        at += 1
        if code == 0x28 and constant == 0xFFFFF000 + 44:
            accumulator = 0x2000 | vlan
        elif code in {0x20, 0x28, 0x30, 0x48}:
            offset = constant + (index if code == 0x48 else 0)
            length = {0x20: 4, 0x30: 1}.get(code, 2)
            if offset + length > len(frame):
                return False
            accumulator = int.from_bytes(frame[offset : offset + length], "big")
        elif code == 0xB1:
            index = 4 * (frame[constant] & 0x0F)
        elif code == 0x07:
            index = accumulator
        elif code == 0x1D:
            at += if_true if accumulator == index else if_false
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x15:
            at += if_true if accumulator == constant else if_false
        elif code == 0x45:
            at += if_true if accumulator & constant else if_false
        elif code == 0x05:
            at += constant
        elif code == 0x06:
            return constant > 0
        else:
            raise AssertionError(f"instruction {code:#x}")


VIP, GATEWAY = "10.1.1.100", "10.1.1.1"
OTHER_UDP = bytearray(dhcp4_frame(1))
OTHER_UDP[36:38] = b"\0\x35"
FRAGMENT = bytearray(dhcp4_frame(1))
FRAGMENT[21] = 1
TCP = bytearray(dhcp4_frame(1))
TCP[23] = 6


@pytest.mark.parametrize(
    "frame",
    [
        *(dhcp4_frame(1), dhcp6_frame(dhcp6_message(1)), solicitation(133), solicitation(135)),
        *(arp(VIP, VIP), arp(VIP, VIP, operation=2), arp(VIP, GATEWAY, operation=2), advertisement("fd00:1::100")),
    ],
    ids=[
        *("DHCPv4", "DHCPv6", "router solicitation", "neighbour solicitation"),
        *("gratuitous ARP", "gratuitous ARP as a reply", "an ARP reply", "neighbour advertisement"),
    ],
)
def test_what_is_answered_or_tells_of_an_address_passes(frame: bytes) -> None:
    assert passes(frame)
    assert passes(frame, muted=(100, 102))
    assert not passes(frame, muted=(99, 101, 4000))


@pytest.mark.parametrize(
    "frame",
    [
        *(bytes(OTHER_UDP), bytes(FRAGMENT), bytes(TCP), solicitation(137), bytes(14), dhcp4_frame(1)[:30]),
        *(arp("10.1.1.11", GATEWAY), arp("0.0.0.0", VIP), arp(VIP, VIP)[:40]),
    ],
    ids=[
        *("another port", "a fragment", "TCP", "a redirect", "an empty frame", "a frame cut short"),
        *("an ARP request", "an ARP probe", "ARP cut short"),
    ],
)
def test_everything_else_stays_out(frame: bytes) -> None:
    assert not passes(frame)


def test_as_many_as_may_be_can_be_muted() -> None:
    muted = range(1, MOST_MUTED + 1)
    assert all(not passes(dhcp4_frame(1), vlan=vlan, muted=muted) for vlan in muted)
    assert passes(dhcp4_frame(1), vlan=MOST_MUTED + 1, muted=muted)
    assert max(max(instruction[1:3]) for instruction in filter_program(muted)) <= 255
