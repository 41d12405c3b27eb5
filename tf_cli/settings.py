"""The configuration of `tfv` as typed values; config/tfv.yaml is a sample."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tf_api.settings import TfSettings
from tf_cli.preflight.settings import CheckSettings
from tf_runtime.settings import Settings
from tf_vsphere.settings import VsphereSettings

BaseUrl = Annotated[str, msgspec.Meta(pattern="^https?://[^/]+$")]


class DaemonSettings(Settings, frozen=True, kw_only=True):
    """The status server of one daemon."""

    name: str
    """What to call it in the output, such as `vrouter-agent esx-a`."""

    url: BaseUrl
    """Its base URL, such as `http://192.0.2.31:9102`."""

    token_file: str | None = None
    """File with the bearer token; needed off loopback."""

    host: str | None = None
    """The ESXi host it works for, by its name in vCenter; None for one that works for the whole site."""


class TfvSettings(Settings, frozen=True, kw_only=True):
    """The whole file."""

    vcenter: VsphereSettings
    """An account that may read is enough."""

    dvswitch: str
    """Name of the distributed switch that carries the portgroups."""

    tf: TfSettings
    datacenter: str | None = None
    """Name of the datacenter of the switch; needed only where two have a switch of that name."""

    daemons: tuple[DaemonSettings, ...] = ()
    """The daemons to ask. Without a host's vRouter agent its vifs are not shown."""

    check: CheckSettings = CheckSettings()
    """What `tfv check` should know of the site."""
