import io
import json
import logging
from collections.abc import Iterator

import pytest

from tf_reconcile.result import Held, PassReport
from tf_runtime.log import LogFormat, Reporter, configure_logging


@pytest.fixture
def _restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_restored_root")
def test_a_text_line_has_the_message_and_its_fields() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)

    logging.getLogger("x").info("portgroup created", extra={"vn": "blue net", "key": 7})

    assert stream.getvalue().rstrip().endswith('INFO x portgroup created vn="blue net" key=7')


@pytest.mark.usefixtures("_restored_root")
@pytest.mark.parametrize("name", ["a\rb", "a\x1b[2Jb", "a\nb", "a\u202eb", ""])
def test_a_name_that_a_terminal_or_a_reader_would_take_for_more_is_spelt_out(name: str) -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)

    logging.getLogger("x").info("changed", extra={"what": name})

    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert line.endswith(f"what={json.dumps(name)}")


@pytest.mark.usefixtures("_restored_root")
def test_a_json_line_parses_and_carries_the_fields() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, format=LogFormat.JSON)

    logging.getLogger("x").warning("held", extra={"reason": "no VLAN"})

    line = json.loads(stream.getvalue())
    assert (line["level"], line["message"], line["reason"]) == ("warning", "held", "no VLAN")


def test_what_is_held_is_told_once_when_it_begins_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(logging.getLogger("x"))
    held = PassReport(held=(Held(subject="a", reason="why"),))
    caplog.set_level(logging.INFO)

    for report in (held, held, PassReport(), PassReport()):
        reporter.report(report)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "held"),
        ("INFO", "recovered"),
    ]


def test_a_new_reason_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(logging.getLogger("x"))

    for reason in ("one", "two"):
        reporter.report(PassReport(held=(Held(subject="a", reason=reason),)))

    assert len(caplog.records) == 2
