"""The plugin's bench tells what it promises, on a site that is small enough for a test."""

from __future__ import annotations

from bench import plugin


def test_the_first_pass_is_measured_against_the_bare_calls_and_in_memory() -> None:
    measured = {one.metric: one for one in plugin.measure(["first"], networks=120)}
    assert set(measured) == {"seconds", "rss_mib"}
    seconds, memory = measured["seconds"], measured["rss_mib"]
    assert seconds.baseline is not None
    assert 0 < seconds.baseline < seconds.value
    assert 10 < memory.value < plugin.BAR_MIB
