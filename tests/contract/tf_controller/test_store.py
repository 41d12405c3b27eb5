"""The database's promises: all or nothing, one consistent state per reader, one owner per number and address."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tf_controller.records import Record, Ref
from tf_controller.store import Event, Selection, Store
from tf_reconcile.errors import ConfigError

WRITERS = 6
PATIENCE_S = 20.0


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.commits = 0

    def __call__(self, events: Sequence[Event]) -> None:
        self.commits += 1
        self.events += [(event.operation, event.uuid) for event in events]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def store(tmp_path: Path, told: Told) -> Iterator[Store]:
    store = Store(tmp_path / "db", told)
    store.open()
    yield store
    store.close()


def thing(uuid: str, *refs: Ref, parent: str | None = None) -> Record:
    return Record(
        resource="virtual-machine",
        uuid=uuid,
        fq_name=(uuid,),
        parent_type="domain" if parent else None,
        parent_uuid=parent,
        properties={"display_name": uuid},
        refs=refs,
    )


def test_who_reads_takes_turns_with_connections_and_none_is_left_open(tmp_path: Path, told: Told) -> None:
    def opened() -> int:
        return sum(fd.resolve() == tmp_path / "db" for fd in Path("/proc/self/fd").iterdir())

    store = Store(tmp_path / "db", told)
    store.open()
    writer = opened()
    with store.reading(), store.reading():
        assert opened() == writer + 2
    with store.reading():
        assert opened() == writer + 2, "one of those that were there already"
        store.close()
    assert opened() == 0


def test_events_are_told_after_the_commit_and_never_of_what_was_undone(store: Store, told: Told) -> None:
    with store.writing() as transaction:
        transaction.insert(thing("a"))
        assert told.events == []
    assert told.events == [("create", "a")]
    with pytest.raises(ZeroDivisionError), store.writing() as transaction:
        transaction.insert(thing("b"))
        raise ZeroDivisionError
    with store.reading() as snapshot:
        assert snapshot.record("b") is None
    assert told.events == [("create", "a")]


def test_a_reader_sees_one_state_however_long_it_reads(store: Store) -> None:
    with store.reading() as snapshot:
        assert snapshot.records("virtual-machine", Selection()) == []
        with store.writing() as transaction:
            transaction.insert(thing("a"))
        assert snapshot.records("virtual-machine", Selection()) == []
    with store.reading() as snapshot:
        assert [record.uuid for record in snapshot.records("virtual-machine", Selection())] == ["a"]


def test_numbers_are_the_lowest_free_ones_and_go_with_their_owner(store: Store) -> None:
    with store.writing() as transaction:
        for uuid in "abc":
            transaction.insert(thing(uuid))
        assert [transaction.take_lowest_number("id", 5, uuid) for uuid in "abc"] == [5, 6, 7]
        transaction.delete(thing("b"))
        transaction.insert(thing("d"))
        assert transaction.take_lowest_number("id", 5, "d") == 6
        assert transaction.take_lowest_number("other", 1, "d") == 1


def test_a_number_that_another_has_is_refused_and_ones_own_can_change(store: Store) -> None:
    with store.writing() as transaction:
        transaction.insert(thing("a"))
        transaction.insert(thing("b"))
        assert transaction.take_number("vxlan", 7, "a")
        assert transaction.take_number("vxlan", 7, "a")
        assert not transaction.take_number("vxlan", 7, "b")
        assert transaction.take_number("vxlan", 8, "a")
        assert transaction.take_number("vxlan", 7, "b")
        assert transaction.take_number("vxlan", None, "b")
        assert transaction.owner_of_number("vxlan", 7) is None


def test_an_address_has_one_owner_per_network_and_goes_with_it(store: Store) -> None:
    v4, v6 = ip_network("10.0.0.0/24"), ip_network("::/64")
    with store.writing() as transaction:
        for uuid in ("net", "other-net", "a", "b"):
            transaction.insert(thing(uuid))
        assert transaction.take_address("net", ip_address("10.0.0.9"), "a")
        assert not transaction.take_address("net", ip_address("10.0.0.9"), "b")
        assert transaction.take_address("other-net", ip_address("10.0.0.9"), "b")
        assert transaction.take_address("net", ip_address("::a00:9"), "b")  # the same number, another family
        assert [*transaction.used_addresses("net", v4, rising=True)] == [int(ip_address("10.0.0.9"))]
        assert [*transaction.used_addresses("net", v6, rising=True)] == [int(ip_address("10.0.0.9"))]
        transaction.free_address("net", ip_address("10.0.0.9"))
        assert transaction.count_addresses("net", v4) == 1  # it belongs to an object, so it stays
        transaction.delete(thing("a"))
        assert transaction.count_addresses("net", v4) == 0


def test_an_object_that_others_refer_to_cannot_vanish(store: Store) -> None:
    with store.writing() as transaction:
        transaction.insert(thing("target"))
        transaction.insert(thing("source", Ref(resource="virtual-machine", uuid="target", to=("target",))))
    with pytest.raises(Exception, match="FOREIGN KEY"), store.writing() as transaction:
        transaction.delete(thing("target"))
    with store.reading() as snapshot:
        assert [relation.uuid for relation in snapshot.referrers(["target"])] == ["source"]


def test_a_database_of_another_version_is_left_alone(tmp_path: Path, store: Store, told: Told) -> None:
    store.close()
    raw = (tmp_path / "db").read_bytes()
    (tmp_path / "db").write_bytes(raw[:60] + (99).to_bytes(4, "big") + raw[64:])
    for leftover in tmp_path.glob("db-*"):
        leftover.unlink()
    with pytest.raises(ConfigError, match="version 99"):
        Store(tmp_path / "db", told).open()


def write(store: Store, uuid: str) -> None:
    with store.writing() as transaction:
        transaction.insert(thing(uuid))


def queued(store: Store, *writes: Callable[[], None]) -> list[Future[None]]:
    """Start `writes` on a thread each while another write is in its block, end that one when all of them wait."""
    with ThreadPoolExecutor(len(writes)) as pool:
        with store.writing() as transaction:
            transaction.insert(thing("first"))
            futures = [pool.submit(each) for each in writes]
            patience = threading.Event()
            for _ in range(int(PATIENCE_S * 100)):
                if store.queued == len(writes):
                    break
                patience.wait(0.01)
            assert store.queued == len(writes)
        return futures


def stored(store: Store) -> set[str]:
    with store.reading() as snapshot:
        return {record.uuid for record in snapshot.records("virtual-machine", Selection())}


def test_writes_that_wait_for_the_writer_are_committed_together(store: Store, told: Told) -> None:
    uuids = [f"queued-{number}" for number in range(WRITERS)]
    for future in queued(store, *(lambda uuid=uuid: write(store, uuid) for uuid in uuids)):
        future.result()
    assert stored(store) == {"first", *uuids}
    assert told.commits == 1
    assert {uuid for _, uuid in told.events} == {"first", *uuids}


def test_a_write_that_is_refused_takes_nothing_of_its_group_along(store: Store, told: Told) -> None:
    def refused() -> None:
        with store.writing() as transaction:
            transaction.insert(thing("refused"))
            raise ZeroDivisionError

    good, bad = queued(store, lambda: write(store, "good"), refused)
    good.result()
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert stored(store) == {"first", "good"}
    assert ("create", "refused") not in told.events


def test_when_a_group_cannot_be_committed_none_of_it_is_acknowledged_and_the_next_write_goes_on(
    store: Store, told: Told
) -> None:
    def dangling() -> None:
        with store.writing() as transaction:
            transaction.insert(thing("child", parent="nobody"))

    with pytest.raises(sqlite3.OperationalError, match="not committed: FOREIGN KEY"):
        queued(store, lambda: write(store, "neighbour"), dangling)
    assert stored(store) == set()
    assert told.events == []
    write(store, "next")
    assert stored(store) == {"next"}


def test_after_the_close_writes_are_refused_and_what_was_written_is_there(store: Store) -> None:
    write(store, "before")
    store.close()
    with pytest.raises(sqlite3.OperationalError, match="closed"):
        write(store, "after")
    store.open()
    assert stored(store) == {"before"}
