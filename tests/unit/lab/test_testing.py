"""How the tests that need a machine are spread over machines."""

from __future__ import annotations

import pytest

from lab.testing import WITH_BAREUDP, files_with_tests, machines_for
from lab.vm import PROJECT

E2E, KERNEL = PROJECT / "tests/e2e", PROJECT / "tests/kernel"


@pytest.mark.parametrize(
    ("files", "cores", "available_mb", "machines"),
    [(9, 2, 8000, 2), (9, 16, 64000, 2), (9, 1, 8000, 1), (1, 2, 8000, 1), (9, 2, 4000, 1), (9, 2, 1000, 1)],
)
def test_there_are_as_many_machines_as_files_cores_and_memory_allow(
    files: int, cores: int, available_mb: int, machines: int
) -> None:
    assert machines_for(files, cores=cores, available_mb=available_mb) == machines


def test_every_test_file_of_the_lab_is_run_without_a_list_of_them() -> None:
    assert files_with_tests([]) == {*E2E.glob("test_*.py"), *KERNEL.glob("test_*.py")}


def test_only_the_files_that_are_asked_for_count() -> None:
    one = KERNEL / "test_overlay.py"
    assert files_with_tests([f"{one}::test_a", "-k", "nothing", f"{one}::test_b"]) == {one}
    assert files_with_tests([str(E2E)]) == set(E2E.glob("test_*.py"))


def test_the_module_that_debian_leaves_out_is_made_for_the_files_that_load_it() -> None:
    loading = {file.name for file in KERNEL.glob("test_*.py") if "with_bareudp" in file.read_text()}
    assert loading == set(WITH_BAREUDP)
