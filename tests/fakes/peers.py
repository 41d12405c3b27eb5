"""The other hosts of an overlay, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tf_reconcile.errors import Rejected
from vrouter_vm.overlay_model import BgpRoute, OverlayNews, OverlayView, RouteKey, Way


@dataclass(kw_only=True)
class FakePeers:
    """What they say, and what they have been told.

    `is_refusing`: the speaker takes nothing. `are_all_new`: they cannot say what has changed, else it is in `changed`.
    """

    remote: dict[RouteKey, BgpRoute] = field(default_factory=dict)
    announced: dict[RouteKey, BgpRoute] = field(default_factory=dict)
    generations: dict[RouteKey, int] = field(default_factory=dict)
    is_settled: bool = True
    gone: set[Way] = field(default_factory=set)
    is_refusing: bool = False
    look_again_s: float | None = None
    passes: int = 0
    are_all_new: bool = True
    changed: set[RouteKey] = field(default_factory=set)

    def view(self) -> OverlayView:
        self.changed = set()
        return OverlayView(
            announced=dict(self.announced),
            generations=dict(self.generations),
            remote=dict(self.remote),
            is_settled=self.is_settled,
            gone=frozenset(self.gone),
            look_again_s=self.look_again_s,
        )

    def news(self) -> OverlayNews | None:
        if self.are_all_new:
            return None
        keys, self.changed = self.changed, set()
        return OverlayNews(
            remote={key: self.remote.get(key) for key in keys},
            gone=frozenset(self.gone),
            look_again_s=self.look_again_s,
        )

    def record_generations(self, generations: Mapping[RouteKey, int]) -> None:
        self.generations = dict(generations)

    def announce(self, route: BgpRoute) -> None:
        if self.is_refusing:
            raise Rejected("fake speaker", "announce", str(route.prefix), "told to refuse")
        self.announced[route.key] = route

    def withdraw(self, route: BgpRoute) -> None:
        del self.announced[route.key]

    def settle(self) -> None:
        self.passes += 1

    def hear(self, *routes: BgpRoute) -> None:
        """Take these as what other hosts say from now on."""
        new = {route.key: route for route in routes}
        keys = self.remote.keys() | new.keys()
        self.changed |= {key for key in keys if self.remote.get(key) != new.get(key)}
        self.remote = new
