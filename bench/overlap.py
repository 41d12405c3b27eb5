"""How long two guests of one host could talk past the vRouter, measured from outside at the simulator's NICs."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from lab.simulator import Simulator

_POLL_S = 0.2


def shared_ids(nics: Iterable[Mapping[str, Any]], networks: frozenset[str]) -> frozenset[tuple[str, int]]:
    """Return the (host, id) that more than one running, connected, unblocked NIC on `networks` has."""
    users = Counter(
        (str(nic["host"]), int(nic["vlan"]["access"]))
        for nic in nics
        if nic["switch"] == "dvs"
        and nic["network"] in networks
        and nic["power"] == "poweredOn"
        and nic["connected"]
        and not nic["blocked"]
        and "access" in nic["vlan"]
    )
    return frozenset(place for place, number in users.items() if number > 1)


class OverlapWatch:
    """Follows the NICs from enter to exit; `seconds` has how long each (host, id) was shared, only those that were."""

    def __init__(self, simulator: Simulator, networks: Iterable[str]) -> None:
        self.seconds: dict[tuple[str, int], float] = defaultdict(float)
        self.looks = 0
        self._simulator = simulator
        self._networks = frozenset(networks)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overlap", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def longest_s(self) -> float:
        """The longest time that one id was shared on one host."""
        return max(self.seconds.values(), default=0.0)

    def _run(self) -> None:
        generation, shared, since_s = -1, frozenset[tuple[str, int]](), time.monotonic()
        while not self._stopping.is_set():
            generation, nics = self._simulator.nics(after=generation, wait_s=_POLL_S)
            now_s = time.monotonic()
            seen = shared_ids(nics, self._networks)
            for place in shared:
                self.seconds[place] += now_s - since_s
            for place in seen:
                self.seconds[place] += 0.0
            shared, since_s = seen, now_s
            self.looks += 1
