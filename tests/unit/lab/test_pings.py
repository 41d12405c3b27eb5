"""What a steady ping's output says about loss."""

from __future__ import annotations

import pytest

from lab.pings import Loss, parse_loss
from lab.tools import ToolError


def told(*answered: int, sent: int) -> str:
    lines = [f"64 bytes from 10.1.1.12: icmp_seq={number} ttl=63 time=0.05 ms" for number in answered]
    return "\n".join(
        [*lines, "", f"{sent} packets transmitted, {len(set(answered))} received, 0% packet loss, time 9ms"]
    )


def test_every_number_without_an_answer_is_missing() -> None:
    loss = parse_loss(told(1, 2, 5, 6, 8, sent=8), interval_s=0.02)
    assert loss == Loss(sent=8, missing=(3, 4, 7), interval_s=0.02)
    assert loss.lost == 3
    assert loss.longest_gap_s == pytest.approx(0.04)


def test_an_answer_that_comes_twice_counts_once_and_one_of_a_router_not_at_all() -> None:
    text = told(1, 1, 2, sent=3).replace("\n\n", "\nFrom 10.1.1.1 icmp_seq=3 Destination Host Unreachable\n\n")
    assert parse_loss(text, interval_s=0.1).missing == (3,)


def test_nothing_missing_is_no_gap() -> None:
    assert parse_loss(told(1, 2, sent=2), interval_s=0.1).longest_gap_s == 0


def test_the_last_packets_were_on_their_way_unless_there_are_too_many_of_them() -> None:
    loss = Loss(sent=10, missing=(3, 9, 10), interval_s=0.1)
    assert loss.without_the_last(0.5) == Loss(sent=8, missing=(3,), interval_s=0.1)
    assert loss.without_the_last(0.2) == loss


def test_an_end_that_ping_did_not_tell_is_an_error() -> None:
    with pytest.raises(ToolError, match="Network is unreachable"):
        parse_loss("ping: connect: Network is unreachable", interval_s=0.1)
