"""`/watch` tells what the real server was recorded to tell while the same calls were made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import urllib3

from lab.controller import Controller
from tests.contract.tf_controller.recording import DATA, Replay, load
from tests.contract.tf_controller.sse import events, labels

RECORDED = [*events([(DATA / "2-watch-sse.txt").read_bytes().split(b"\n", 1)[1]])]
FLOW = [call for call in load("2-subnets-policy-tags-routers.jsonl") if call.section.startswith("A ")]
EVENTS_OF_FLOW = 14


@pytest.fixture
def controller() -> Iterator[Controller]:
    with Controller(settings={"watch_keepalive_s": 0.05}) as running:
        yield running


def watch(controller: Controller, types: str) -> urllib3.BaseHTTPResponse:
    pool = urllib3.PoolManager(retries=False, timeout=10.0)
    return pool.request("GET", f"{controller.url}/watch?resource_type={types}", preload_content=False)


def test_the_same_calls_give_the_same_events_in_the_same_order(controller: Controller) -> None:
    stream = watch(controller, "virtual_machine_interface,instance_ip")
    told = events(stream.stream())
    begun = [*itertools.islice(told, 2)]  # the watch is open from here on
    replay = Replay(url=controller.url)
    for call in FLOW:
        assert replay.differences(call) == []
    seen = [*begun, *itertools.islice(told, EVENTS_OF_FLOW - 2)]
    stream.close()
    assert labels(seen) == labels(RECORDED[:EVENTS_OF_FLOW])
    assert dict(stream.headers)["Content-Type"] == "text/event-stream"


def test_an_event_carries_the_object_without_addresses_and_a_deletion_only_the_uuid(controller: Controller) -> None:
    recorded = next(data["instance-ip"] for name, data in RECORDED if name == "create" and "instance-ip" in data)
    stream = watch(controller, "virtual_machine")
    told = events(stream.stream())
    next(told)
    uuid = controller.api().create("virtual-machine", {"fq_name": ["vm-1"]})
    name, data = next(told)
    assert name == "create"
    assert data["virtual-machine"].keys() == recorded.keys() - {
        "instance_ip_address",
        "subnet_uuid",
        "virtual_network_refs",
        "virtual_machine_interface_refs",
    }
    controller.api().delete("virtual-machine", uuid)
    assert next(told) == ("delete", {"virtual-machine": {"uuid": uuid}})
    stream.close()


def test_what_was_there_before_comes_first(controller: Controller) -> None:
    uuid = controller.api().create("virtual-machine", {"fq_name": ["vm-1"]})
    stream = watch(controller, "virtual_machine")
    name, data = next(events(stream.stream()))
    stream.close()
    assert (name, data["virtual-machines"][0]["virtual-machine"]["uuid"]) == ("init", uuid)


def test_a_silent_watch_sends_comments(controller: Controller) -> None:
    stream = watch(controller, "virtual_machine")
    received = b"".join(itertools.islice(stream.stream(), 3))
    stream.close()
    assert received.endswith(b"\n\n:\n\n:\n\n")


def test_watches_do_not_use_up_the_threads(controller: Controller) -> None:
    streams = [watch(controller, "virtual_machine") for _ in range(20)]
    for stream in streams:
        assert next(events(stream.stream()))[0] == "init"
    assert controller.api(timeout_s=15.0).list("domain") != []
    for stream in streams:
        stream.close()


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("?resource_type=nonsense", 404), ("?resource_type=virtual-machine", 400)]
)
def test_a_watch_of_nothing_or_of_an_unknown_type_is_refused(controller: Controller, query: str, status: int) -> None:
    pool = urllib3.PoolManager(retries=False)
    assert pool.request("GET", f"{controller.url}/watch{query}").status == status
