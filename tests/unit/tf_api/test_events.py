from __future__ import annotations

import pytest

from tf_api.watch import complete_events

STREAM = (
    b": hello\n\nevent: init\ndata: {}\n\n:\n\n"
    b'event: create\ndata: {"event: x": 1}\n\nevent: update\r\ndata: 1\r\n\r\nevent: half\ndata: '
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_events_are_counted_however_the_stream_is_cut(size: int) -> None:
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert len([*complete_events(chunks)]) == 3


def test_a_long_event_is_one_event() -> None:
    chunks = [b"event: init\ndata: ", *[b"event:" * 1000] * 50, b"\n", b"\n"]
    assert len([*complete_events(chunks)]) == 1


def test_comments_are_none() -> None:
    assert [*complete_events([b":\n\n:\n\n"])] == []
