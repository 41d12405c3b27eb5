from __future__ import annotations

from typing import Any

import pytest

from tf_cli.agents import AgentAnswer
from tf_cli.flows import render_flows, select
from tf_reconcile.errors import ConfigError

FLOW: dict[str, Any] = {
    "host": "esx-a",
    "vrf": "v5",
    "protocol": "tcp",
    "source": "10.1.1.11",
    "source_port": 40000,
    "destination": "fd00::1",
    "destination_port": 443,
    "state": "established",
    "expires_s": 431999,
    "packets": None,
    "bytes": None,
}


def agent(host: str, **guests: str) -> AgentAnswer:
    ports = {name: {"display_name": name, "addresses": [at], "vrf": "v5"} for name, at in guests.items()}
    return AgentAnswer(host=host, index=0, status={"ports": ports})


SITE = [agent("esx-a", web="10.1.1.11"), agent("esx-b", db="10.1.1.12", late="10.1.1.13")]


def test_a_connection_is_one_line() -> None:
    assert render_flows([FLOW]) == [
        "HOST   VRF  PROTOCOL  FROM             TO             STATE        EXPIRES   PACKETS  BYTES",
        "esx-a  v5   tcp       10.1.1.11:40000  [fd00::1]:443  established  431999 s  -        -",
    ]
    icmp = FLOW | {"protocol": "icmp", "source_port": None, "destination_port": None, "packets": 2, "bytes": 168}
    assert render_flows([icmp])[1].split() == [
        "esx-a", "v5", "icmp", "10.1.1.11", "fd00::1", "established", "431999", "s", "2", "168",
    ]  # fmt: skip
    offloaded = FLOW | {"state": "offloaded", "expires_s": None}
    assert render_flows([offloaded])[1].split()[-4:] == ["offloaded", "-", "-", "-"]
    assert render_flows([]) == ["no connection"]


def test_a_guest_is_asked_for_where_it_is_by_name_or_address() -> None:
    for guest in ("db", "10.1.1.12"):
        (found,) = select(SITE, guest=guest, vrf=None)
        assert (found[0].host, found[1]) == ("esx-b", {"vrf": "v5", "address": "10.1.1.12"})


def test_without_a_guest_everybody_is_asked() -> None:
    assert [(answer.host, query) for answer, query in select(SITE, guest=None, vrf="v5")] == [
        ("esx-a", {"vrf": "v5"}),
        ("esx-b", {"vrf": "v5"}),
    ]


def test_a_guest_that_nobody_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"GUEST: no vif is that guest's.*'x'.*db, late, web"):
        select(SITE, guest="x", vrf=None)
