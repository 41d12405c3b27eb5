"""Laws of address allocation."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from tf_controller.addresses import AddressSpace, IpAddress, IpNetwork, next_free

MANY = 80  # more than the small networks below have addresses


@st.composite
def spaces(draw: st.DrawFn) -> AddressSpace:
    network: IpNetwork = draw(
        st.sampled_from(
            [
                ipaddress.ip_network(text)
                for text in ("10.0.0.0/30", "10.0.0.0/29", "10.0.0.0/26", "10.0.0.0/8", "fd00::/124", "fd00::/64")
            ]
        )
    )
    inside = st.integers(0, min(network.num_addresses, MANY) - 1).map(lambda offset: network[offset])
    pairs = st.tuples(inside, inside).map(lambda pair: (min(pair, key=int), max(pair, key=int)))
    return AddressSpace(
        subnet_uuid="s",
        network=network,
        gateway=draw(st.none() | inside),
        service=draw(inside),
        pools=tuple(draw(st.lists(pairs, max_size=3))),
        from_start=draw(st.booleans()),
    )


def in_order(space: AddressSpace, used: set[IpAddress]) -> list[int]:
    return sorted((int(address) for address in used), reverse=not space.from_start)


def hand_out(space: AddressSpace, used: set[IpAddress], count: int) -> list[IpAddress]:
    """Take addresses one after the other until none is left."""
    given_out: list[IpAddress] = []
    while len(given_out) < count and (address := next_free(space, in_order(space, used))) is not None:
        used.add(address)
        given_out.append(address)
    return given_out


def is_allowed(space: AddressSpace, address: IpAddress) -> bool:
    in_pool = not space.pools or any(int(low) <= int(address) <= int(high) for low, high in space.pools)
    return in_pool and address in space.network and address != space.gateway and not space.is_reserved(address)


@settings(deadline=None)  # what is tested is not how busy the machine is
@given(spaces())
def test_no_address_is_given_twice_and_each_is_allowed(space: AddressSpace) -> None:
    addresses = hand_out(space, set(), MANY)
    assert len(addresses) == len(set(addresses))
    assert all(is_allowed(space, address) for address in addresses)


@settings(deadline=None)  # what is tested is not how busy the machine is
@given(spaces())
def test_nothing_is_left_when_it_says_exhausted(space: AddressSpace) -> None:
    used: set[IpAddress] = set()
    hand_out(space, used, MANY)
    if len(used) < MANY and space.network.num_addresses <= MANY:
        assert all(address in used or not is_allowed(space, address) for address in space.network)


@settings(deadline=None)  # what is tested is not how busy the machine is
@given(spaces(), st.data())
def test_an_address_that_was_freed_is_the_next_one_if_none_before_it_is_free(
    space: AddressSpace, data: st.DataObject
) -> None:
    used: set[IpAddress] = set()
    addresses = hand_out(space, used, MANY)
    if not addresses:
        return
    freed = data.draw(st.sampled_from(addresses))
    used.remove(freed)
    assert next_free(space, in_order(space, used)) == freed


@settings(deadline=None)  # what is tested is not how busy the machine is
@given(spaces(), st.sets(st.integers(0, MANY - 1)))
def test_it_goes_down_from_the_top_or_up_from_the_start(space: AddressSpace, offsets: set[int]) -> None:
    used = {space.network[offset] for offset in offsets if offset < space.network.num_addresses}
    numbers = [int(address) for address in hand_out(space, used, MANY)]
    assert numbers == sorted(numbers, reverse=not space.from_start)


@settings(deadline=None)  # what is tested is not how busy the machine is
@given(spaces(), st.sets(st.integers(0, MANY - 1)))
def test_what_is_in_use_is_never_given(space: AddressSpace, offsets: set[int]) -> None:
    used = {space.network[offset] for offset in offsets if offset < space.network.num_addresses}
    assert next_free(space, in_order(space, used)) not in used
