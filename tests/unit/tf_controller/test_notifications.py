from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tf_controller.notifications import Hub, Watch, stream, watched_fields
from tf_controller.refusal import Refusal
from tf_controller.schema import load_schema
from tf_controller.store import Event, Store


def event(number: int, resource: str = "virtual-machine") -> Event:
    return Event(operation="create", resource=resource, uuid=str(number), fq_name=(str(number),))


def drain(watch: Watch) -> list[str]:
    found = []
    while (one := watch.next(0.0)) is not None:
        found.append(one.uuid)
    return found


def test_a_watch_gets_the_events_of_its_types_in_order_from_its_opening_to_its_end() -> None:
    hub = Hub()
    hub.publish([event(0)])
    watch = hub.open({"virtual-machine": None})
    hub.publish([event(1), event(2, "instance-ip"), event(3)])
    assert drain(watch) == ["1", "3"]
    hub.close(watch)
    hub.publish([event(4)])
    assert drain(watch) == []


def test_a_watch_that_falls_too_far_behind_ends_and_the_others_go_on() -> None:
    hub = Hub()
    slow, quick = hub.open({"virtual-machine": None}), hub.open({"virtual-machine": None})
    for number in range(11):
        hub.publish([event(1000 * number + step) for step in range(1000)])
        assert len(drain(quick)) == 1000
    assert slow.is_ended
    assert slow.next(0.0) is None
    assert not quick.is_ended


def test_when_the_server_stops_open_watches_end_and_new_ones_do_not_begin() -> None:
    hub = Hub()
    watch = hub.open({"virtual-machine": None})
    hub.close_all()
    assert watch.next(10.0) is None
    assert watch.is_ended
    assert hub.open({"virtual-machine": None}).is_ended


def test_of_a_stream_that_nobody_begins_to_read_no_watch_stays_behind(tmp_path: Path) -> None:
    class CountingHub(Hub):
        opened = 0

        def open(self, fields: Mapping[str, frozenset[str] | None]) -> Watch:
            self.opened += 1
            return super().open(fields)

    hub, store = CountingHub(), Store(tmp_path / "tf.sqlite", lambda events: None, settings_file="test")
    store.open()
    unread = stream(store, load_schema(), hub, {"virtual-machine": None}, 0.0)
    assert isinstance(unread, Generator)
    unread.close()
    assert hub.opened == 0
    read = stream(store, load_schema(), hub, {"virtual-machine": None}, 0.0)
    assert next(iter(read)).startswith(b"event: init\n")
    assert hub.opened == 1
    store.close()


def test_the_words_of_a_watch_call() -> None:
    words = {"resource_type": "virtual_machine,instance_ip", "virtual_machine_fields": "display_name,uuid"}
    assert watched_fields(load_schema(), words) == {
        "virtual-machine": frozenset({"display_name", "uuid"}),
        "instance-ip": None,
    }


@pytest.mark.parametrize(
    ("words", "status"),
    [({}, 400), ({"resource_type": ""}, 400), ({"resource_type": "x"}, 404), ({"resource_type": "instance-ip"}, 400)],
)
def test_a_watch_call_that_is_wrong(words: dict[str, str], status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        watched_fields(load_schema(), words)
    assert refusal.value.status == status
