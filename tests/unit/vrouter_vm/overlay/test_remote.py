from __future__ import annotations

import weakref
from ipaddress import ip_network

from msgspec.structs import replace

from tests.unit.vrouter_vm.overlay.test_evpn import remote
from vrouter_vm.overlay.remote import RemoteRoutes

A, B = remote(1), remote(2, prefix="10.1.1.12/32")


def table(*, now: float = 0.0) -> RemoteRoutes:
    return RemoteRoutes(stale_s=600.0, settle_s=30.0, now=now)


def test_a_route_that_is_told_is_used_and_one_that_is_withdrawn_is_not() -> None:
    routes = table()
    assert routes.learn(A)
    assert not routes.learn(A), "the same again changes nothing"
    assert routes.learn(replace(A, generation=101))
    assert routes.withdraw(A.key, has_peers=True, now=1.0)
    assert not routes.withdraw(A.key, has_peers=True, now=1.0)
    assert routes.routes == {}


def test_a_lost_speaker_changes_nothing_until_the_deadline() -> None:
    routes = table()
    routes.learn(A)
    routes.lost(now=10.0)
    assert not routes.expire(now=599.0)
    assert routes.routes == {A.key: A}
    assert routes.expire(now=610.0)
    assert routes.routes == {}


def test_losing_it_again_gives_no_new_time() -> None:
    routes = table()
    routes.learn(A)
    routes.lost(now=10.0)
    routes.lost(now=500.0)
    routes.expire(now=610.0)
    assert routes.routes == {}


def test_what_is_told_again_is_not_stale_any_more() -> None:
    routes = table()
    routes.learn(A)
    routes.lost(now=10.0)
    assert not routes.learn(A)
    assert routes.stale == frozenset()
    routes.expire(now=10_000.0)
    assert routes.routes == {A.key: A}


def test_of_what_is_told_again_nothing_is_held_twice() -> None:
    routes = table()
    routes.learn(A)
    routes.peer_up(now=0.0)
    again = replace(A, prefix=ip_network(str(A.prefix)))
    prefix = weakref.ref(again.prefix)
    routes.learn(again)
    del again
    assert prefix() is None


def test_what_is_not_told_again_goes_once_peers_have_been_back_for_a_while() -> None:
    routes = table()
    for route in (A, B):
        routes.learn(route)
    routes.lost(now=10.0)
    routes.learn(A)
    routes.peer_told_all(now=20.0)  # a reflector that has just started says "that was all" too early
    assert not routes.expire(now=49.0)
    assert routes.routes.keys() == {A.key, B.key}
    assert routes.expire(now=50.0)
    assert routes.routes == {A.key: A}


def test_the_wait_begins_anew_when_the_peers_go_again() -> None:
    routes = table()
    routes.learn(A)
    routes.lost(now=10.0)
    routes.peer_told_all(now=20.0)
    routes.peers_gone(now=30.0)
    routes.expire(now=60.0)
    assert routes.routes == {A.key: A}
    routes.peer_told_all(now=70.0)
    routes.expire(now=100.0)
    assert routes.routes == {}


def test_a_withdrawal_without_any_peer_is_the_speakers_own_and_ends_nothing() -> None:
    routes = table()
    routes.learn(A)
    assert not routes.withdraw(A.key, has_peers=False, now=10.0)
    assert routes.routes == {A.key: A}
    assert routes.stale == {A.key}
    routes.expire(now=610.0)
    assert routes.routes == {}


def test_what_was_withdrawn_just_before_the_last_session_ended_is_in_use_again() -> None:
    for end in (RemoteRoutes.peers_gone, RemoteRoutes.lost):
        routes = table()
        for route in (A, B):
            routes.learn(route)
        routes.take_changes()
        routes.withdraw(A.key, has_peers=True, now=100.0)  # by its owner
        routes.withdraw(B.key, has_peers=True, now=104.0)  # by a reflector that is stopped, client by client
        assert routes.gone == {(A.prefix, A.next_hop), (B.prefix, B.next_hop)}
        assert end(routes, now=105.0)
        assert routes.routes == {B.key: B}
        assert routes.stale == {B.key}
        assert routes.gone == {(A.prefix, A.next_hop)}
        assert routes.take_changes() == {A.key: None, B.key: B}
        assert not end(routes, now=105.1), "once"


def test_what_has_been_told_anew_since_is_not_taken_for_what_was_withdrawn() -> None:
    routes = table()
    routes.learn(A)
    routes.withdraw(A.key, has_peers=True, now=100.0)
    newer = replace(A, generation=101)
    routes.learn(newer)
    assert not routes.peers_gone(now=101.0)
    assert routes.routes == {A.key: newer}


def test_what_goes_soon_after_a_session_has_come_up_is_kept_until_the_others_have_told_theirs() -> None:
    routes = table()
    for route in (A, B):
        routes.learn(route)
    routes.peers_gone(now=9.0)
    routes.peer_up(now=10.0)  # a reflector that was restarted, and has not heard of a and b yet
    routes.peer_told_all(now=11.0)
    assert not routes.withdraw(A.key, has_peers=True, now=11.0)
    assert not routes.withdraw(B.key, has_peers=True, now=11.0)
    assert routes.routes.keys() == {A.key, B.key}
    routes.learn(A)
    assert routes.expire(now=41.0)
    assert routes.routes == {A.key: A}
    routes.peer_up(now=41.5)
    routes.learn(B)
    assert routes.withdraw(B.key, has_peers=True, now=41.7), "it was told since, so its owner withdraws it"
    routes.expire(now=80.0)
    assert routes.withdraw(A.key, has_peers=True, now=80.0), "later on a withdrawal is one"
    assert routes.routes == {}


def test_routes_of_an_earlier_run_are_used_at_once_and_believed_no_longer_than_others() -> None:
    routes = table(now=100.0)
    routes.learn(replace(A, generation=105))
    routes.remember([A, B], now=100.0)
    assert routes.routes == {A.key: replace(A, generation=105), B.key: B}
    assert routes.stale == {B.key}
    assert routes.next_deadline == 700.0


def test_the_table_is_settled_when_peers_have_been_there_for_a_while() -> None:
    routes = table()
    assert not routes.is_settled
    routes.peer_told_all(now=5.0)
    assert routes.next_deadline == 35.0
    assert routes.expire(now=35.0), "what the kernel holds beyond the table goes now"
    assert routes.is_settled
    assert routes.next_deadline is None
    assert not routes.expire(now=36.0)


def test_what_is_withdrawn_before_the_table_is_settled_is_known_to_be_gone() -> None:
    routes = table()
    for route in (A, B):
        routes.learn(route)
        routes.withdraw(route.key, has_peers=True, now=1.0)
    assert routes.gone == {(A.prefix, A.next_hop), (B.prefix, B.next_hop)}
    routes.learn(A)
    assert routes.gone == {(B.prefix, B.next_hop)}
    routes.peer_told_all(now=5.0)
    routes.expire(now=35.0)
    assert routes.gone == frozenset()


def test_the_table_is_settled_when_nobody_came_in_the_time_that_a_route_is_believed() -> None:
    routes = table()
    assert not routes.expire(now=599.0)
    assert routes.expire(now=600.0)
    assert routes.is_settled


def test_what_a_peer_may_not_tell_is_not_gone_because_it_has_not_told_it_and_ends_at_its_deadline() -> None:
    routes = table()
    routes.learn(A)
    routes.lost(now=10.0)
    routes.is_partial = True
    routes.peer_told_all(now=20.0)
    assert not routes.expire(now=500.0)
    assert routes.routes == {A.key: A}
    assert not routes.is_settled
    assert routes.expire(now=610.0)
    assert routes.routes == {}


def test_once_a_peer_may_tell_everything_what_it_does_not_tell_is_gone() -> None:
    routes = table()
    routes.learn(A)
    routes.lost(now=10.0)
    routes.is_partial = True
    routes.peer_told_all(now=20.0)
    routes.expire(now=50.0)
    routes.is_partial = False
    assert not routes.expire(now=79.0)
    assert routes.expire(now=80.0)
    assert routes.routes == {}
    assert routes.is_settled
