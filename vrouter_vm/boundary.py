"""What the agent needs from outside, as it needs it.

Adapters: `kernel`, `filters.tables`, `filters.conntrack`, `tf.network_feed`, `tf.interface_feed`, `port_files`,
`overlay`, `guest_services.claim_box`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from tf_api.model import JsonObject, Snapshot
from tf_reconcile.errors import BoundaryError
from vrouter_vm.actions import FilterAction, KernelAction
from vrouter_vm.claims import Claim, Standing
from vrouter_vm.filters.flows import Flow
from vrouter_vm.filters.rules import PolicyView
from vrouter_vm.kernel_model import Observed, ObservedFilters
from vrouter_vm.model import (
    InterfaceView,
    IpAddress,
    ListKey,
    Network,
    NetworkView,
    Placement,
    Port,
    SetKey,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.overlay_model import BgpRoute, OverlayNews, OverlayView, RouteKey


class Forwarding(Protocol):
    """The kernel's links, addresses, routes, neighbours, rules and settings."""

    def observe(self, filters: ObservedFilters) -> Observed:
        """Return all that is ours, whole, together with `filters`; raise `BoundaryError` otherwise."""
        ...

    def apply_all(self, actions: Sequence[KernelAction]) -> Sequence[BoundaryError | None]:
        """Carry out actions that do not depend on one another; return for each why it failed, None when it is done."""
        ...


class Filtering(Protocol):
    """Our nftables tables."""

    def observe(self) -> ObservedFilters:
        """Return both tables, whole; raise `BoundaryError` otherwise."""
        ...

    def apply(self, action: FilterAction) -> None:
        """Carry out one action in one transaction; raise `BoundaryError` when nothing was changed."""
        ...

    def flush_flowtable(self) -> None:
        """Have the next packet of every flow pass the filters again; raise `BoundaryError` when that was not done."""
        ...


class FlowTable(Protocol):
    """The flows that the kernel keeps."""

    def flows(self, zones: Collection[int], *, of: Collection[IpAddress] | None = None) -> list[Flow]:
        """Return the flows in these conntrack zones, at least those from and to the addresses `of`, None: all of them;
        raise `BoundaryError` otherwise.
        """
        ...

    def turn(self, flows: Iterable[Flow]) -> None:
        """Revoke these flows, or those of them that are revoked no more; raise `BoundaryError` when that is refused."""
        ...


class Ports(Protocol):
    """The ports that clients have posted."""

    def take_changes(self) -> frozenset[VmiUuid] | None:
        """Return which have come, changed or gone since the last call; None: any of them may have."""
        ...

    def ports(self) -> tuple[Port, ...]:
        """Return all of them."""
        ...

    def get(self, vmi_uuid: VmiUuid) -> Port | None:
        """Return one of them, or None."""
        ...


class Networks(Protocol):
    """What is known of virtual networks. Never blocks."""

    def take_changes(self) -> frozenset[VnUuid] | None:
        """Return of which something else is known since the last call; None: of any."""
        ...

    def view(self, needed: frozenset[VnUuid], *, of: frozenset[VnUuid] | None = None) -> NetworkView:
        """Return what is known now of `needed`, or of those of them that are in `of`."""
        ...


class Placements(Protocol):
    """Who serves guests beside the forwarding and has to know where they are."""

    def take(self, placements: Mapping[VmiUuid, Placement | None], *, is_all: bool) -> None:
        """Take note, after a pass, of where ports are served now (None: nowhere). `is_all`: there are no others."""
        ...


class AddressClaims(Protocol):
    """What guests say of addresses that they share with others."""

    def take(self) -> Sequence[Claim]:
        """Return what they have said since the last call."""
        ...

    def publish(self, standing: Standing) -> None:
        """Tell whoever hears guests how their claims stand after a pass."""
        ...


class NetworkSource(Protocol):
    """Where virtual networks come from."""

    def fetch(self, vn_uuids: frozenset[VnUuid]) -> Mapping[VnUuid, Network]:
        """Return those of `vn_uuids` that exist, all of them; raise `AgentError` when that cannot be told."""
        ...


class Interfaces(Protocol):
    """What is known of the ports' interfaces in TF. Never blocks."""

    def take_changes(self) -> frozenset[VmiUuid] | None:
        """Return of which interfaces something else is known since the last call; None: of any."""
        ...

    def view(self, needed: frozenset[VmiUuid], *, of: frozenset[VmiUuid] | None = None) -> InterfaceView:
        """Return what is known now of `needed`, or of those of them that are in `of`."""
        ...

    def take_policy_changes(self) -> frozenset[ListKey | SetKey] | None:
        """Return which lists and member sets of policies are others since the last call; None: any may be."""
        ...

    def policies(self, of: frozenset[ListKey | SetKey] | None = None) -> PolicyView:
        """Return all that is known now of the policies on the interfaces, or of the lists and member sets in `of`."""
        ...


class InterfaceSource(Protocol):
    """Where interfaces come from."""

    def fetch(self, vmi_uuids: frozenset[VmiUuid], *, kept: Iterable[JsonObject]) -> Snapshot:
        """Return TF's objects by type: those of `vmi_uuids` that exist or are in `kept`, and all that they refer to;
        raise `AgentError` when that cannot be told.
        """
        ...


class Peers(Protocol):
    """The other hosts of the overlay. Nothing here waits for them."""

    def view(self) -> OverlayView:
        """Return all that is known now."""
        ...

    def news(self) -> OverlayNews | None:
        """Return what has changed since the last `view` or `news`; None: look at all of it."""
        ...

    def record_generations(self, generations: Mapping[RouteKey, int]) -> None:
        """Keep these for the next run; to be called before claims of these generations are told."""
        ...

    def announce(self, route: BgpRoute) -> None:
        """Tell them a route, or its change; raise `BoundaryError` when it is refused."""
        ...

    def withdraw(self, route: BgpRoute) -> None:
        """Tell them that a route is no more; raise `BoundaryError` when that is refused."""
        ...

    def settle(self) -> None:
        """Take note that a pass is over: what has been announced by now is all that this host has."""
        ...
