from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from vrouter_vm.prefixes import host_prefix, packed_prefix, parse_prefix, shared_address


@pytest.mark.parametrize("text", ["10.1.1.11/32", "0.0.0.0/0", "10.0.0.0/8", "fd00:1::/64", "::/0", "fd00:1::11/128"])
def test_a_prefix_is_the_network_that_it_is_made_like(text: str) -> None:
    network = ip_network(text)
    packed, length = network.network_address.packed, network.prefixlen
    for made in (parse_prefix(text), packed_prefix(packed, length, version=network.version)):
        assert made == network
        assert network == made
        assert hash(made) == hash(network)
        assert {network: 1}[made] == {made: 1}[network] == 1
        assert (repr(made), str(made)) == (repr(network), str(network)), "orders and logs do not tell them apart"


@pytest.mark.parametrize("text", ["10.1.1.11/32", "10.1.1.10/31", "fd00:1::11/128"])
def test_a_prefix_that_was_read_from_text_takes_no_more_memory_than_another(text: str) -> None:
    network = ip_network(text)
    made = packed_prefix(network.network_address.packed, network.prefixlen, version=network.version)
    assert vars(parse_prefix(text)).keys() == vars(made).keys(), "a prefix of one or two addresses has no function"


def test_an_address_within_a_prefix_names_it_and_one_address_is_a_prefix_of_its_own() -> None:
    assert packed_prefix(ip_address("10.1.1.11").packed, 24, version=4) == ip_network("10.1.1.0/24")
    assert host_prefix(ip_address("fd00:1::11")) == ip_network("fd00:1::11/128")
    assert packed_prefix(b"", 0, version=6) == ip_network("::/0")


def test_an_address_that_many_have_in_common_is_the_address_that_it_is_made_like() -> None:
    address = IPv4Address("203.0.113.1")
    made = shared_address(address.packed)
    assert made == address
    assert address == made
    assert {address: 1}[made] == {made: 1}[address] == 1
    assert (repr(made), str(made)) == (repr(address), str(address))
    assert shared_address(address.packed) is made


@pytest.mark.parametrize(("length", "version"), [(33, 4), (-1, 4), (129, 6), (-1, 6)])
def test_a_prefix_longer_than_an_address_is_none(length: int, version: int) -> None:
    with pytest.raises(ValueError, match=f"{length}"):
        packed_prefix(bytes(16 if version == 6 else 4), length, version=version)


@pytest.mark.parametrize("text", ["10.1.1.300/32", "10.1.1.1/33", "fd00::g/64", "", "10.1.1.1/24"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_prefix(text)
