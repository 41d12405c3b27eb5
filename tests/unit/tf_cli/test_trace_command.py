from __future__ import annotations

import pytest

from tf_cli.trace_command import Question, check_question
from tf_reconcile.errors import ConfigError


@pytest.mark.parametrize(("protocol", "port"), [("icmp", None), ("tcp", 443), ("udp", 0), ("47", None)])
def test_protocols_that_there_are(protocol: str, port: int | None) -> None:
    check_question(Question(from_vm="a", to="b", protocol=protocol, port=port))


@pytest.mark.parametrize(
    ("protocol", "port", "told"),
    [
        ("http", None, "PROTOCOL: no such protocol .*http.*allowed: icmp, tcp, udp, sctp or 0 to 255"),
        ("256", None, "no such protocol"),
        ("icmp", 8, "PORT: icmp has no ports"),
        ("tcp", None, "PORT: tcp needs the destination's port"),
        ("tcp", 65536, "PORT: no such port.*65536.*0 to 65535"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(protocol: str, port: int | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_question(Question(from_vm="a", to="b", protocol=protocol, port=port))
