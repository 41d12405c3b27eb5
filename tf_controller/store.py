"""Objects, references, addresses and numbers in one SQLite file.

Called by `objects`, `hooks`, `listing` and `app`. A write is all or nothing, and its answer goes out after the commit:
the write-ahead log is synced to disk at each commit (`synchronous=FULL`, https://sqlite.org/wal.html), so what was
acknowledged survives `kill -9` and a power cut. Writes that come while a commit waits for the disk are committed
together by the next one (group commit). Readers each see one consistent state and never wait for the writer. That an
address or a number has one owner is a primary key here, whatever the rules above do.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from tf_controller.addresses import IpAddress, IpNetwork
from tf_controller.records import Record, Ref
from tf_reconcile.errors import ConfigError

JsonObject: TypeAlias = dict[str, Any]
Row: TypeAlias = tuple[Any, ...]

_VERSION: Final = 1
_BUSY_TIMEOUT_S: Final = 10.0
_TABLES: Final = """
CREATE TABLE objects (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    resource TEXT NOT NULL,
    fq_name TEXT NOT NULL,
    parent_type TEXT,
    parent_uuid TEXT REFERENCES objects (uuid) DEFERRABLE INITIALLY DEFERRED,
    properties TEXT NOT NULL,
    UNIQUE (resource, fq_name)
);
CREATE INDEX children ON objects (parent_uuid);
CREATE TABLE refs (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    from_uuid TEXT NOT NULL REFERENCES objects (uuid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    to_uuid TEXT NOT NULL REFERENCES objects (uuid) DEFERRABLE INITIALLY DEFERRED,
    attr TEXT NOT NULL,
    UNIQUE (from_uuid, to_uuid)
);
CREATE INDEX referrers ON refs (to_uuid);
CREATE TABLE addresses (
    scope_uuid TEXT NOT NULL REFERENCES objects (uuid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    address BLOB NOT NULL,
    owner_uuid TEXT REFERENCES objects (uuid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (scope_uuid, address)
) WITHOUT ROWID;
CREATE INDEX addresses_of ON addresses (owner_uuid);
CREATE TABLE numbers (
    kind TEXT NOT NULL,
    number INTEGER NOT NULL,
    owner_uuid TEXT NOT NULL REFERENCES objects (uuid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (kind, number)
) WITHOUT ROWID;
CREATE INDEX numbers_of ON numbers (owner_uuid);
"""
_COLUMNS: Final = "uuid, resource, fq_name, parent_type, parent_uuid, properties"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A committed change: `operation` is create, update or delete."""

    operation: str
    resource: str
    uuid: str
    fq_name: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One end of a reference or of a parent-child relation: `owner_uuid` is the object asked about, the rest
    describes the other one.
    """

    owner_uuid: str
    resource: str
    uuid: str
    fq_name: tuple[str, ...]
    attr: JsonObject | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects of a type are meant; every given condition has to hold, an empty one holds for none."""

    uuids: Sequence[str] | None = None
    parent_uuids: Sequence[str] | None = None
    back_ref_uuids: Sequence[str] | None = None
    fq_names: Sequence[Sequence[str]] | None = None


class Snapshot:
    """Read access to one consistent state."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def record(self, uuid: str) -> Record | None:
        """Return the object with that uuid, or None."""
        row = self._sql.execute(f"SELECT {_COLUMNS} FROM objects WHERE uuid = ?", (uuid,)).fetchone()
        return None if row is None else _record(row, self._refs([uuid]).get(uuid, ()))

    def uuid_of(self, resource: str, fq_name: Sequence[str]) -> str | None:
        """Return the uuid of the object with that type and name, or None."""
        query = "SELECT uuid FROM objects WHERE resource = ? AND fq_name = ?"
        row = self._sql.execute(query, (resource, _encoded([*fq_name]))).fetchone()
        return None if row is None else str(row[0])

    def records(self, resource: str, selection: Selection) -> list[Record]:
        """Return the selected objects of a type with their references, in the order of their creation."""
        conditions, arguments = _conditions(selection)
        where = " AND ".join(["resource = ?", *conditions])
        rows = self._sql.execute(
            f"SELECT {_COLUMNS} FROM objects WHERE {where} ORDER BY sequence", (resource, *arguments)
        ).fetchall()
        refs = self._refs([row[0] for row in rows])
        return [_record(row, refs.get(row[0], ())) for row in rows]

    def children(self, uuids: Sequence[str]) -> list[Relation]:
        """Return the children of these objects, in the order of their creation."""
        query = """SELECT parent_uuid, resource, uuid, fq_name, 'null' FROM objects
            WHERE parent_uuid IN (SELECT value FROM json_each(?)) ORDER BY sequence"""
        return [_relation(row) for row in self._sql.execute(query, (_encoded([*uuids]),))]

    def referrers(self, uuids: Sequence[str]) -> list[Relation]:
        """Return the objects that refer to these, ordered by uuid."""
        query = """SELECT refs.to_uuid, objects.resource, objects.uuid, objects.fq_name, refs.attr
            FROM refs JOIN objects ON objects.uuid = refs.from_uuid
            WHERE refs.to_uuid IN (SELECT value FROM json_each(?)) ORDER BY objects.uuid"""
        return [_relation(row) for row in self._sql.execute(query, (_encoded([*uuids]),))]

    def used_addresses(self, scope_uuid: str, network: IpNetwork, *, rising: bool) -> Iterator[int]:
        """Yield the addresses in use in a subnet of the network or ipam `scope_uuid` as numbers, in that order."""
        query = f"""SELECT address FROM addresses WHERE scope_uuid = ? AND address BETWEEN ? AND ?
            ORDER BY address {"ASC" if rising else "DESC"}"""
        bounds = (_address_key(network.network_address), _address_key(network.broadcast_address))
        for (key,) in self._sql.execute(query, (scope_uuid, *bounds)):
            yield int.from_bytes(key[1:], "big")

    def count_addresses(self, scope_uuid: str, network: IpNetwork) -> int:
        """Return how many addresses of a subnet are in use."""
        query = "SELECT count(*) FROM addresses WHERE scope_uuid = ? AND address BETWEEN ? AND ?"
        bounds = (_address_key(network.network_address), _address_key(network.broadcast_address))
        return int(self._sql.execute(query, (scope_uuid, *bounds)).fetchone()[0])

    def owner_of_number(self, kind: str, number: int) -> str | None:
        """Return the uuid of the object that has that number, or None."""
        row = self._sql.execute(
            "SELECT owner_uuid FROM numbers WHERE kind = ? AND number = ?", (kind, number)
        ).fetchone()
        return None if row is None else str(row[0])

    def _refs(self, uuids: Sequence[str]) -> dict[str, tuple[Ref, ...]]:
        query = """SELECT refs.from_uuid, objects.resource, objects.uuid, objects.fq_name, refs.attr
            FROM refs JOIN objects ON objects.uuid = refs.to_uuid
            WHERE refs.from_uuid IN (SELECT value FROM json_each(?)) ORDER BY refs.position"""
        found: dict[str, list[Ref]] = {}
        for from_uuid, resource, uuid, fq_name, attr in self._sql.execute(query, (_encoded([*uuids]),)):
            ref = Ref(resource=resource, uuid=uuid, to=tuple(_decoded(fq_name)), attr=_decoded(attr))
            found.setdefault(from_uuid, []).append(ref)
        return {uuid: tuple(refs) for uuid, refs in found.items()}


class Transaction(Snapshot):
    """Read and write access; `events` are told to the watchers after the commit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.events: list[Event] = []

    def insert(self, record: Record) -> None:
        """Store a new object with its references."""
        values = (
            record.uuid,
            record.resource,
            _encoded([*record.fq_name]),
            record.parent_type,
            record.parent_uuid,
            _encoded(record.properties),
        )
        self._sql.execute(f"INSERT INTO objects ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", values)
        self._write_refs(record)
        self._note("create", record)

    def replace(self, record: Record) -> None:
        """Store an object's properties and references as they are now."""
        self._sql.execute(
            "UPDATE objects SET properties = ? WHERE uuid = ?", (_encoded(record.properties), record.uuid)
        )
        self._sql.execute("DELETE FROM refs WHERE from_uuid = ?", (record.uuid,))
        self._write_refs(record)
        self._note("update", record)

    def delete(self, record: Record) -> None:
        """Remove an object, its references, addresses and numbers."""
        self._sql.execute("DELETE FROM objects WHERE uuid = ?", (record.uuid,))
        self._note("delete", record)

    def remove_refs_to(self, uuid: str) -> None:
        """Remove every reference to an object. No events: the real server does not tell the referrers either."""
        self._sql.execute("DELETE FROM refs WHERE to_uuid = ?", (uuid,))

    def take_address(self, scope_uuid: str, address: IpAddress, owner_uuid: str | None) -> bool:
        """Give an address to its owner (None: reserved without an object); False when it is in use."""
        query = "INSERT OR IGNORE INTO addresses (scope_uuid, address, owner_uuid) VALUES (?, ?, ?)"
        return self._sql.execute(query, (scope_uuid, _address_key(address), owner_uuid)).rowcount == 1

    def free_address(self, scope_uuid: str, address: IpAddress) -> None:
        """Free an address that was reserved without an object; others stay with their owner."""
        query = "DELETE FROM addresses WHERE scope_uuid = ? AND address = ? AND owner_uuid IS NULL"
        self._sql.execute(query, (scope_uuid, _address_key(address)))

    def take_lowest_number(self, kind: str, start: int, owner_uuid: str) -> int:
        """Give the lowest free number from `start` on to an object; it is free again when the object is deleted."""
        query = """SELECT MIN(candidate) FROM (
                SELECT ?2 AS candidate UNION ALL SELECT number + 1 FROM numbers WHERE kind = ?1 AND number >= ?2
            ) WHERE candidate NOT IN (SELECT number FROM numbers WHERE kind = ?1)"""
        number = int(self._sql.execute(query, (kind, start)).fetchone()[0])
        self._sql.execute("INSERT INTO numbers (kind, number, owner_uuid) VALUES (?, ?, ?)", (kind, number, owner_uuid))
        return number

    def take_number(self, kind: str, number: int | None, owner_uuid: str) -> bool:
        """Make `number` the only one of its kind that the object has (None: no number); False when another object has
        it.
        """
        if number is not None and self.owner_of_number(kind, number) not in (None, owner_uuid):
            return False
        self._sql.execute("DELETE FROM numbers WHERE kind = ? AND owner_uuid = ?", (kind, owner_uuid))
        if number is not None:
            self._sql.execute(
                "INSERT INTO numbers (kind, number, owner_uuid) VALUES (?, ?, ?)", (kind, number, owner_uuid)
            )
        return True

    def announce_update(self, record: Record) -> None:
        """Tell the watchers that an object changed, although nothing of it is stored here."""
        self._note("update", record)

    def _write_refs(self, record: Record) -> None:
        values = [(record.uuid, ref.uuid, _encoded(ref.attr)) for ref in record.refs]
        self._sql.executemany("INSERT INTO refs (from_uuid, to_uuid, attr) VALUES (?, ?, ?)", values)

    def _note(self, operation: str, record: Record) -> None:
        self.events.append(
            Event(operation=operation, resource=record.resource, uuid=record.uuid, fq_name=record.fq_name)
        )


class _Group:
    """Writes that are committed together. All but `wait` only by the thread that has the writer."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        self._sql = connection
        self._events: list[Event] = []
        self._error: BaseException | None = None
        self._is_over = threading.Event()

    @property
    def is_broken(self) -> bool:
        """Tell whether SQLite has undone all of it."""
        return self._error is not None

    @contextmanager
    def member(self) -> Iterator[Transaction]:
        """Give read and write access; when the block raises, what it did is undone and nothing else."""
        transaction = Transaction(self._sql)
        self._sql.execute("SAVEPOINT member")
        try:
            yield transaction
        except BaseException as error:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK TO member")
                self._sql.execute("RELEASE member")
            else:  # SQLite has undone all of it, as when the disk is full: https://sqlite.org/lang_transaction.html
                self._error = error
            raise
        self._sql.execute("RELEASE member")
        self._events += transaction.events

    def commit(self, on_commit: Callable[[Sequence[Event]], None]) -> None:
        """Commit, tell the events and let the waiting go on; raises nothing of the database's."""
        try:
            if self._error is None:
                self._sql.execute("COMMIT")
        except sqlite3.Error as error:
            self._error = error
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
        else:
            if self._error is None:
                on_commit(self._events)
        finally:
            self._is_over.set()

    def wait(self) -> None:
        """Return when the group is committed; `sqlite3.Error` when it was not."""
        self._is_over.wait()
        if self._error is not None:
            raise sqlite3.OperationalError(f"not committed: {self._error}") from self._error


class Store:
    """The database file; safe to share between threads. `on_commit` gets the events of each commit, in the order of
    the commits.
    """

    def __init__(
        self, path: Path, on_commit: Callable[[Sequence[Event]], None], *, settings_file: str | None = None
    ) -> None:
        self._path = path
        self._settings_file = settings_file
        self._on_commit = on_commit
        self._lock = threading.Lock()  # who has it has the writer
        self._queue_lock = threading.Lock()
        self._queued = 0  # threads that wait for the writer
        self._group: _Group | None = None
        self._idle_readers: list[sqlite3.Connection] = []  # as many as have read at once
        self._writer: sqlite3.Connection | None = None
        self._opened = ExitStack()

    def open(self) -> None:
        """Open the file, or make it; ConfigError when it cannot be used, or another process uses it."""
        lock_file = self._path.with_name(f"{self._path.name}.lock")
        with ExitStack() as opened:
            try:
                guard = opened.enter_context(lock_file.open("w"))
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                writer = opened.enter_context(closing(_connect(self._path)))
                writer.execute("PRAGMA journal_mode = WAL")
                version = writer.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    writer.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
            except BlockingIOError as error:
                raise self._unusable("another process uses this database") from error
            except (OSError, sqlite3.Error) as error:
                raise self._unusable(f"cannot open the database: {error}") from error
            if version not in (0, _VERSION):
                raise self._unusable(f"the database has version {version}, this program knows {_VERSION}")
            self._writer = writer
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the connections, that of a reading under way at its end, and release the file."""
        with self._lock:
            self._commit()
            self._writer = None
            self._opened.close()
        self._close_readers()

    def _close_readers(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle_readers.pop().close()

    def is_writable(self, timeout_s: float) -> bool:
        """Tell whether the writer is free within that time."""
        if not self._lock.acquire(timeout=timeout_s):
            return False
        self._lock.release()
        return self._writer is not None

    @property
    def queued(self) -> int:
        """How many threads wait for the writer."""
        return self._queued

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Give read access to the state as it is now, for the length of the block."""
        try:
            connection = self._idle_readers.pop()
        except IndexError:
            connection = _connect(self._path)
        connection.execute("BEGIN")
        try:
            yield Snapshot(connection)
        finally:
            connection.execute("ROLLBACK")
            self._idle_readers.append(connection)
            if self._writer is None:  # closed meanwhile
                self._close_readers()

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Give read and write access; what the block did is on disk when it ends, or nothing of it when it raises.

        Blocks of several threads run one after the other and may be committed together, so each sees what those before
        it did. Nobody returns before that commit, a block that raised included: what made it raise may have been done
        by one of the others. `sqlite3.Error` for all of them when the commit fails.
        """
        group: _Group | None = None
        try:
            with self._turn() as group, group.member() as transaction:
                yield transaction
        finally:
            if group is not None:
                group.wait()

    @contextmanager
    def _turn(self) -> Iterator[_Group]:
        """Give the writer to this thread. The last of those who wait for it commits for all before it."""
        with self._queue_lock:
            self._queued += 1
        with self._lock:
            with self._queue_lock:
                self._queued -= 1
            if self._group is None:
                self._group = _Group(self._connection())
            try:
                yield self._group
            finally:
                if self._queued == 0 or self._group.is_broken:  # who joins the queue from now on finds it committed
                    self._commit()

    def _connection(self) -> sqlite3.Connection:
        if self._writer is None:
            raise sqlite3.OperationalError("the database is closed")
        return self._writer

    def _commit(self) -> None:
        """Commit the open group, if there is one, and tell its events; the caller has the writer."""
        group, self._group = self._group, None
        if group is not None:
            group.commit(self._on_commit)

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(
            reason,
            file=self._settings_file,
            key="database",
            value=str(self._path),
            allowed="a file on a local disk that this process may write",
        )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _conditions(selection: Selection) -> tuple[list[str], list[str]]:
    listed = "(SELECT value FROM json_each(?))"
    names = selection.fq_names
    parts = {
        f"uuid IN {listed}": selection.uuids,
        f"parent_uuid IN {listed}": selection.parent_uuids,
        f"uuid IN (SELECT from_uuid FROM refs WHERE to_uuid IN {listed})": selection.back_ref_uuids,
        f"fq_name IN {listed}": None if names is None else [_encoded([*name]) for name in names],
    }
    given = [(condition, _encoded([*values])) for condition, values in parts.items() if values is not None]
    return [condition for condition, _ in given], [values for _, values in given]


def _record(row: Row, refs: tuple[Ref, ...]) -> Record:
    uuid, resource, fq_name, parent_type, parent_uuid, properties = row
    return Record(
        uuid=uuid,
        resource=resource,
        fq_name=tuple(_decoded(fq_name)),
        parent_type=parent_type,
        parent_uuid=parent_uuid,
        properties=_decoded(properties),
        refs=refs,
    )


def _relation(row: Row) -> Relation:
    owner_uuid, resource, uuid, fq_name, attr = row
    return Relation(
        owner_uuid=owner_uuid, resource=resource, uuid=uuid, fq_name=tuple(_decoded(fq_name)), attr=_decoded(attr)
    )


def _encoded(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _decoded(text: str) -> Any:
    return msgspec.json.decode(text)


def _address_key(address: IpAddress) -> bytes:
    """Return what addresses are stored and ordered by; the version comes first, so that the two kinds never mix in a
    range.
    """
    return bytes([address.version]) + int(address).to_bytes(16, "big")
