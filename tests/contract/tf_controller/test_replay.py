"""The calls that were recorded with a real config API server get the same answers here, in the same order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.controller import Controller
from tests.contract.tf_controller.recording import Call, Replay, load

CORE = load("1-core.jsonl")
SUBNETS = load("2-subnets-policy-tags-routers.jsonl")

SKIPPED_CORE = {
    0: "the homepage lists every type and action of the real server, here only those that are served (test_homepage)",
}
SKIPPED_SUBNETS = {
    59: "allocation in blocks (alloc_unit): refused here with 400 rather than ignored",
    **dict.fromkeys(range(86, 89), "type not served: route-target"),
    **dict.fromkeys((93, 94), "type not served: route-target"),
    **dict.fromkeys(range(131, 136), "types not served: logical-router"),
    142: "refers to a port of a skipped record",
    147: "the system configuration has children of types not served: alarm, fabric",
    **dict.fromkeys(range(151, 154), "types not served: fabric, virtual-port-group"),
    156: "type not served: port-profile",
    **dict.fromkeys(range(159, 162), "quotas are not served"),
    **dict.fromkeys(range(162, 171), "verbs not served: useragent-kv, obj-perms, chmod, chown, ref-relax-for-delete"),
}
"""Records that are not replayed, and why."""


def _id(call: Call) -> str:
    return f"{call.index}-{call.method}-{call.status}-{call.note[:40]}"


@pytest.fixture(scope="module")
def core() -> Iterator[Replay]:
    with Controller() as controller:
        yield Replay(url=controller.url)


@pytest.fixture(scope="module")
def subnets() -> Iterator[Replay]:
    with Controller() as controller:
        yield Replay(url=controller.url)


def test_of_the_core_recording_one_record_is_skipped() -> None:
    assert len(CORE) == 205
    assert SKIPPED_CORE.keys() == {0}


def test_of_the_second_recording_only_types_and_verbs_out_of_scope_are_skipped() -> None:
    in_scope_sections = [call.index for call in SUBNETS if call.section.startswith(("A ", "B ", "C "))]
    assert len(SUBNETS) == 171
    assert len(in_scope_sections) == 81
    assert set(in_scope_sections) & SKIPPED_SUBNETS.keys() == {59}


@pytest.mark.parametrize("call", [call for call in CORE if call.index not in SKIPPED_CORE], ids=_id)
def test_a_call_of_the_core_recording_gets_the_same_answer(core: Replay, call: Call) -> None:
    assert core.differences(call) == []


@pytest.mark.parametrize("call", [call for call in SUBNETS if call.index not in SKIPPED_SUBNETS], ids=_id)
def test_a_call_of_the_second_recording_gets_the_same_answer(subnets: Replay, call: Call) -> None:
    assert subnets.differences(call) == []


def test_the_comparison_sees_a_wrong_value_a_missing_key_and_a_wrong_status() -> None:
    read = next(call for call in CORE if call.index == 3)
    wrong_answers: tuple[dict[str, object], ...] = (
        {"global-system-configs": [{**read.answer["global-system-configs"][0], "fq_name": ["other"]}]},
        {"global-system-configs": [{"uuid": read.answer["global-system-configs"][0]["uuid"]}]},
        {"global-system-configs": []},
    )
    with Controller() as controller:
        for answer in wrong_answers:
            assert Replay(url=controller.url).differences(read.altered(answer=answer)) != []
        assert Replay(url=controller.url).differences(read.altered(status=404)) != []
