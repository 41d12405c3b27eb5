"""The watch against the real embedded controller: every change wakes, so does every reconnect."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from lab.controller import Controller
from tf_api.client import ConfigApi
from tf_api.watch import Watch
from tf_reconcile.backoff import Backoff

SOON = Backoff(first_s=0.02, most_s=0.05)
PATIENCE_S = 10.0


class Waker:
    """Counts the calls, and waits for the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.count = 0

    def __call__(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait_for(self, count: int) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self.count >= count, PATIENCE_S)


def holds(claim: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not claim() and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return claim()


def test_each_change_of_a_watched_type_wakes_and_others_do_not() -> None:
    woken = Waker()
    with Controller() as controller:
        api = controller.api()
        watch = Watch(api, ["virtual-machine", "instance-ip"], woken, backoff=SOON)
        watch.start()
        assert woken.wait_for(2)  # one first event per type
        assert watch.is_connected
        uuid = api.create("virtual-machine", {"fq_name": ["vm"]})
        assert woken.wait_for(3)
        api.create("project", {"fq_name": ["default-domain", "p"], "parent_type": "domain"})
        api.update("virtual-machine", uuid, {"display_name": "new"})
        assert woken.wait_for(4)
        api.delete("virtual-machine", uuid)
        assert woken.wait_for(5)
        watch.stop()
        assert not watch.is_connected
        assert woken.count == 5


def test_a_server_that_dies_and_comes_back_wakes(tmp_path: Path) -> None:
    woken = Waker()
    controller = Controller(directory=tmp_path)
    controller.start()
    watch = Watch(controller.api(), ["virtual-machine"], woken, backoff=SOON)
    watch.start()
    assert woken.wait_for(1)
    controller.kill()
    assert holds(lambda: not watch.is_connected)
    with Controller(directory=tmp_path, listen=controller.url.removeprefix("http://")):
        assert woken.wait_for(2)
        watch.stop()


def test_a_silent_connection_is_given_up_and_made_anew() -> None:
    woken = Waker()
    with Controller(settings={"watch_keepalive_s": 600}) as controller:
        watch = Watch(controller.api(), ["virtual-machine"], woken, backoff=SOON, idle_timeout_s=0.2)
        watch.start()
        assert woken.wait_for(2)
        watch.stop()


def test_the_next_server_of_the_list_is_tried() -> None:
    woken = Waker()
    with Controller() as gone:
        dead_url = gone.url
    with Controller() as controller:
        watch = Watch(ConfigApi([dead_url, controller.url]), ["virtual-machine"], woken, backoff=SOON)
        watch.start()
        assert woken.wait_for(1)
        watch.stop()


def test_stop_ends_a_watch_that_never_connected() -> None:
    with Controller() as gone:
        dead_url = gone.url
    watch = Watch(ConfigApi([dead_url]), ["virtual-machine"], Waker(), backoff=Backoff(first_s=60.0))
    watch.start()
    began = time.monotonic()
    watch.stop()
    assert time.monotonic() - began < 5.0
