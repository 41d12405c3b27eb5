from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyVmomi import vim

from tf_vsphere.portgroup_mark import (
    MARK_KEY,
    Mark,
    Phase,
    find_mark,
    find_mark_of_any_phase,
    format_mark,
    parse_mark,
)

VN, PROJECT = "7b9d2f0c-1a54-4c0e-9f2e-0d6c1f6a4b11", "c2a8e7d4-53b0-4f9e-8a1d-2b7e90d1f3a6"


@settings(deadline=None)  # what is tested is not how busy the machine is
@given(st.uuids(), st.lists(st.text(), max_size=4), st.none() | st.uuids())
def test_a_mark_comes_back_as_it_was_written(vn_uuid: object, fq_name: list[str], project: object) -> None:
    project_uuid = None if project is None else str(project)
    text = format_mark(str(vn_uuid), fq_name, project_uuid)
    assert parse_mark(text) == Mark(vn_uuid=str(vn_uuid), fq_name=tuple(fq_name), project_uuid=project_uuid)
    assert text.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "blue",
        "[]",
        "null",
        "{}",
        '{"uuid": "blue", "fq_name": ["a"]}',
        f'{{"uuid": "{VN}"}}',
        f'{{"uuid": "{VN}", "fq_name": "a"}}',
        f'{{"uuid": "{VN}", "fq_name": [1]}}',
        '{"uuid": 7, "fq_name": []}',
        f'{{"uuid": "{VN}", "fq_name": [], "project": "blue"}}',
        f'{{"uuid": "{VN}", "fq_name": [], "phase": "tomorrow"}}',
    ],
)
def test_what_is_no_mark_makes_no_portgroup_ours(text: str) -> None:
    assert parse_mark(text) is None


def test_the_mark_is_found_among_other_vendors_entries() -> None:
    entries = [
        vim.dvs.KeyedOpaqueBlob(key="com.vmware.nsx", opaqueData="x"),
        vim.dvs.KeyedOpaqueBlob(key=MARK_KEY, opaqueData=format_mark(VN, ["d", "p", "n"], PROJECT)),
    ]
    assert find_mark(entries) == Mark(vn_uuid=VN, fq_name=("d", "p", "n"), project_uuid=PROJECT)
    assert find_mark(entries[:1]) is None
    assert find_mark(None) is None


@pytest.mark.parametrize("phase", [Phase.ADOPTING, Phase.LEAVING])
def test_a_portgroup_that_changes_hands_is_left_alone_by_everybody(phase: Phase) -> None:
    entries = [vim.dvs.KeyedOpaqueBlob(key=MARK_KEY, opaqueData=format_mark(VN, ["d", "p", "n"], PROJECT, phase=phase))]
    assert find_mark(entries) is None
    assert find_mark_of_any_phase(entries) == Mark(
        vn_uuid=VN, fq_name=("d", "p", "n"), project_uuid=PROJECT, phase=phase
    )
