from __future__ import annotations

import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.reflector import ALL_FAMILIES, reflector_configuration

SAMPLE = Path(__file__).parents[3] / "config" / "route-reflector.toml"
FIRST, SECOND = IPv4Address("192.0.2.100"), IPv4Address("192.0.2.101")


def test_the_sample_is_what_the_tests_run_with() -> None:
    made = reflector_configuration(
        asn=64512, address=FIRST, clients=IPv4Network("192.0.2.0/24"), families=ALL_FAMILIES, other=SECOND
    )
    assert tomllib.loads(SAMPLE.read_text()) == tomllib.loads(made)


def test_of_two_reflectors_one_waits_for_the_other() -> None:
    waits = {}
    for address, other in ((FIRST, SECOND), (SECOND, FIRST)):
        text = reflector_configuration(asn=64512, address=address, clients=IPv4Network("192.0.2.0/24"), other=other)
        (neighbour,) = tomllib.loads(text)["neighbors"]
        assert neighbour["config"]["neighbor-address"] == str(other)
        waits[address] = neighbour["transport"]["config"]["passive-mode"]
    assert waits == {FIRST: False, SECOND: True}
