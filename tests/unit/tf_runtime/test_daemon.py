from collections.abc import Sequence

import pytest

from tf_reconcile.errors import ConfigError
from tf_runtime.daemon import run_main


def test_the_exit_code_of_main_is_passed_on() -> None:
    assert run_main(len, ["a", "b", "c"]) == 3


def test_an_operators_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: Sequence[str]) -> int:
        raise ConfigError("bad", file="x.yaml", key="a.b", value=1, allowed="2")

    assert run_main(main, []) == 2
    assert capsys.readouterr().err == "x.yaml: a.b: bad (value: 1); allowed: 2\n"


def test_a_bug_is_logged_with_its_traceback_and_exit_code_1(caplog: pytest.LogCaptureFixture) -> None:
    def main(_: Sequence[str]) -> int:
        raise KeyError("bug")

    assert run_main(main, []) == 1
    assert caplog.records[0].exc_info is not None
