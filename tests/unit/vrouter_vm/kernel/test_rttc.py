from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

from vrouter_vm.kernel.rttc import (
    FarEnd,
    delete_far_end,
    filters_request,
    hook,
    parse_far_end,
    probe_action,
    set_far_end,
)

HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
MAC = "02:00:c0:00:02:02"
SENT = set_far_end(7, MAC, vtep=THERE, local=HERE, through=8, ttl=64)

# Device 7, the VTEP as the handle, the hook on the way out, priority 1 and the Ethernet type of MPLS.
HEADER = struct.pack("=BxxxiIII", 0, 7, 0xC0000202, 0xFFFFFFF3, 1 << 16 | 0x4788)


def test_a_filter_is_one_for_labelled_packets_on_the_way_out_and_its_handle_is_the_far_end() -> None:
    assert SENT.body.startswith(HEADER)
    assert delete_far_end(7, THERE).body.startswith(HEADER)
    assert filters_request(7) == struct.pack("=BxxxiIII", 0, 7, 0, 0xFFFFFFF3, 0)


def test_a_filter_is_read_back_as_it_was_sent() -> None:
    assert parse_far_end(SENT.body, through=8, ttl=64) == FarEnd(THERE, MAC, HERE)


@pytest.mark.parametrize(("through", "ttl"), [(9, 64), (8, 1)])
def test_one_that_leads_elsewhere_is_told_apart(through: int, ttl: int) -> None:
    assert parse_far_end(SENT.body, through=through, ttl=ttl) == FarEnd(THERE, "", HERE)


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        (b"tunnel_key\0", b"tunnel_kez\0"),
        (bytes.fromhex("02 00 c0 00 02 02"), bytes.fromhex("02 00 c0 00 02 03")),
        (THERE.packed, IPv4Address("192.0.2.3").packed),
        (bytes([0xFF] * 6), bytes([0xFF] * 5 + [0])),
    ],
)
def test_one_that_somebody_has_changed_is_not_what_was_sent(what: bytes, instead: bytes) -> None:
    start = len(HEADER)  # its handle stays
    changed = SENT.body[:start] + SENT.body[start:].replace(what, instead)
    end = parse_far_end(changed, through=8, ttl=64)
    assert end is not None
    assert end.vtep == THERE
    assert end.mac != MAC


def test_what_is_no_filter_of_ours_is_left_out() -> None:
    without_options = delete_far_end(7, THERE).body
    assert parse_far_end(without_options, through=8, ttl=64) is None
    other_priority = struct.pack("=BxxxiIII", 0, 7, 0xC0000202, 0xFFFFFFF3, 2 << 16 | 0x4788) + SENT.body[len(HEADER) :]
    assert parse_far_end(other_priority, through=8, ttl=64) is None


def test_a_hook_and_a_probe_name_their_kind() -> None:
    assert hook(7).body.endswith(b"clsact\0\0")
    assert b"mirred\0" in probe_action("mirred").body
