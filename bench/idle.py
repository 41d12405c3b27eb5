"""SOAP calls of a manager with twenty guests, and of a plugin with twenty networks and guests, that have nothing to do.

An hour's worth of quiet: every period in the settings is a tenth of its default, and so is the hour. The start is left
out. `lockdown` is a manager that watches its host through vCenter. The bar is two calls a minute and process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.attach import HOST
from bench.plugin import idle_plugin
from bench.report import Measurement
from bench.site import Daemon, Site, scratch, settled_calls, wait_until_quiet
from lab.simulator import Simulator
from tf_vsphere.settings import VsphereSettings
from vcenter_manager.settings import ManagerSettings
from vcenter_plugin.settings import PluginSettings, SweepSettings

NAME: Final = "idle"
CASES: Final = ("manager", "lockdown", "plugin")
HOUR_S: Final = 3600.0
FASTER: Final = 10.0
BAR: Final = 2.0
_GUESTS: Final = 20


def measure(cases: Sequence[str] = CASES) -> Iterator[Measurement]:
    """Yield the calls per minute, on all endpoints together; `baseline` is the bar."""
    count: Mapping[str, Callable[[Path], int]] = {
        "manager": lambda folder: _count_of_manager(folder, is_locked=False),
        "lockdown": lambda folder: _count_of_manager(folder, is_locked=True),
        "plugin": _count_of_plugin,
    }
    for case in cases:
        with scratch(NAME) as folder:
            yield Measurement(
                bench=NAME,
                case=case,
                metric="soap_calls_per_minute",
                value=round(count[case](folder) / (HOUR_S / 60), 2),
                unit="calls/min",
                baseline=BAR,
            )


def _sooner(settings: type[msgspec.Struct], *names: str) -> dict[str, float]:
    """Return the defaults of these periods, each a tenth."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(settings)}
    return {name: defaults[name] / FASTER for name in names}


def _endpoint_sooner(section: Mapping[str, Any]) -> dict[str, Any]:
    return {**section, **_sooner(VsphereSettings, "timeout_s", "keep_alive_s")}


def _count_of_plugin(folder: Path) -> int:
    sooner = {**_sooner(PluginSettings, "full_period_s"), "sweep": _sooner(SweepSettings, "period_s", "second_look_s")}
    with idle_plugin(folder, networks=_GUESTS, guests=_GUESTS, changes=(sooner, _endpoint_sooner)) as (plugin, where):
        plugin.wait_in_sync()
        return _count(where)


def _count_of_manager(folder: Path, *, is_locked: bool) -> int:
    guests = [(f"guest-{index}", HOST) for index in range(_GUESTS)]
    with Site(folder, hosts=(HOST,), networks={"blue": "10.1.0.0/16"}, guests=guests) as site:
        site.admin.attach_nics([(name, "blue") for name, _ in guests])
        settings = {**site.settings[HOST], **_sooner(ManagerSettings, "full_period_s")}
        settings |= {section: _endpoint_sooner(settings[section]) for section in ("esxi", "vcenter")}
        if is_locked:
            del settings["esxi"]
            settings["inventory"] = "vcenter"
        manager = Daemon("vcenter_manager", settings, folder, name="idle").start()
        try:
            settled_calls(site, manager)
            return _count(site.simulator)
        finally:
            manager.end()


def _count(simulator: Simulator) -> int:
    """Return the SOAP calls of an hour's worth, from a quiet moment on."""
    wait_until_quiet(simulator)
    simulator.reset_calls()
    time.sleep(HOUR_S / FASTER)  # the thing measured is what happens while nothing happens
    return simulator.soap_calls()
