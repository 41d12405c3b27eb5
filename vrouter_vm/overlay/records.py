"""Pure: what `exchange` keeps in files for the next run: other hosts' routes, and how new this host's claims are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vrouter_vm.cache import check_version
from vrouter_vm.overlay.evpn import parse_route
from vrouter_vm.overlay_model import BgpRoute, RouteKey
from vrouter_vm.prefixes import parse_prefix

_CACHE_VERSION: Final = 1
_GENERATIONS_VERSION: Final = 1


def format_cache(remote: Iterable[BgpRoute], *, saved_at: float) -> dict[str, Any]:
    """Return the cache file's content."""
    return {
        "version": _CACHE_VERSION,
        "saved_at": saved_at,
        "remote": list(remote),
    }


def parse_cache(raw: Mapping[str, Any]) -> list[BgpRoute]:
    """Return other hosts' routes; raises ValueError, KeyError or TypeError when it is no cache."""
    check_version(raw, _CACHE_VERSION)
    return [parse_route(route) for route in raw["remote"]]


def format_generations(generations: Mapping[RouteKey, int], *, boot_id: str, saved_at: float) -> dict[str, Any]:
    """Return the content of the file of generations."""
    return {
        "version": _GENERATIONS_VERSION,
        "saved_at": saved_at,
        "boot_id": boot_id,
        "generations": [[rd, str(prefix), generation] for (rd, prefix), generation in generations.items()],
    }


def parse_generations(raw: Mapping[str, Any]) -> tuple[dict[RouteKey, int], str]:
    """Return our generations and the boot that they are of, empty where that is not known; raises ValueError, KeyError
    or TypeError when the file is of another kind.
    """
    check_version(raw, _GENERATIONS_VERSION)
    generations = {(str(rd), parse_prefix(str(prefix))): int(number) for rd, prefix, number in raw["generations"]}
    return generations, str(raw.get("boot_id", ""))
