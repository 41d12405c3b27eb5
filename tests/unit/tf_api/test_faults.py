from __future__ import annotations

import pytest

from tf_api import faults
from tf_reconcile.errors import Conflict, Rejected, Transient


@pytest.mark.parametrize(
    ("status", "is_read", "kind"),
    [
        (400, True, Rejected),
        (401, True, Transient),
        (403, False, Rejected),
        (404, True, Rejected),
        (408, True, Transient),
        (409, False, Conflict),
        (412, False, Rejected),
        (413, False, Rejected),
        (429, False, Transient),
        (500, True, Transient),
        (500, False, Rejected),
        (501, False, Transient),
        (502, False, Transient),
        (503, True, Transient),
        (504, False, Transient),
    ],
)
def test_the_status_decides(status: int, is_read: bool, kind: type[Exception]) -> None:
    error = faults.translate(status=status, text="why", operation="read", subject="x", is_read=is_read)
    assert type(error) is kind
    assert str(error) == f"TF config API: read x: HTTP {status}: why"


def test_a_page_of_html_becomes_one_short_line() -> None:
    text = faults.shorten("<html>\n  <pre>" + "x" * 1000)
    assert "\n" not in text
    assert len(text) < 310
