from __future__ import annotations

from ipaddress import ip_address

import pytest

from vrouter_vm.guest_services.dns import failure_of, id_of, parse_resolvers, question_of, with_id

QUESTION = b"\x03www\x07example\0\0\x01\0\x01"
QUERY = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0" + QUESTION
ANSWER = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0" + QUESTION + b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01"


def test_the_question_is_what_query_and_answer_have_in_common() -> None:
    assert question_of(QUERY, is_response=False) == QUESTION
    assert question_of(ANSWER, is_response=True) == QUESTION


@pytest.mark.parametrize(
    ("message", "is_response"),
    [
        pytest.param(QUERY, True, id="a query for an answer"),
        pytest.param(ANSWER, False, id="an answer for a query"),
        pytest.param(b"", False, id="empty"),
        pytest.param(QUERY[:-1], False, id="cut short"),
        pytest.param(QUERY[:12], False, id="without its question"),
        pytest.param(QUERY[:5] + b"\x02" + QUERY[6:], False, id="two questions"),
        pytest.param(QUERY[:12] + b"\xc0\x0c\0\x01\0\x01", False, id="a pointer in the question"),
        pytest.param(QUERY[:12] + b"\x3f" + b"a" * 8, False, id="a label beyond the end"),
    ],
)
def test_what_is_no_plain_query_or_answer_has_no_question(message: bytes, is_response: bool) -> None:
    assert question_of(message, is_response=is_response) is None


def test_only_the_identifier_is_changed() -> None:
    changed = with_id(QUERY, 0xBEEF)
    assert (id_of(changed), changed[2:]) == (0xBEEF, QUERY[2:])


def test_a_failure_answers_that_query() -> None:
    failure = failure_of(QUERY, QUESTION)
    assert question_of(failure, is_response=True) == QUESTION
    assert id_of(failure) == 0x1234
    assert failure[2:4] == b"\x81\x82", "an answer, recursion desired and available, server failure"


def test_resolvers_are_read_as_a_c_library_reads_them() -> None:
    text = "# nameserver 9.9.9.9\nsearch a\nnameserver 10.0.0.1\nnameserver fd00::1\n nameserver\nnameserver x\n"
    assert parse_resolvers(text) == (ip_address("10.0.0.1"), ip_address("fd00::1"))
    assert len(parse_resolvers("nameserver 10.0.0.1\n" * 5)) == 3
