"""How to reach one vCenter or ESXi: the section of a daemon's configuration that every vSphere client shares."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tf_runtime.settings import Seconds, Settings

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class VsphereSettings(Settings, frozen=True, kw_only=True):
    """One endpoint and one account.

    TLS is verified: by `thumbprint_sha256` when it is given, else by `ca_file`, else by the system's authorities.
    """

    host: str
    """Name or address of vCenter or ESXi; IPv6 without brackets."""

    user: str
    """Account, for vCenter with its domain: `tf@vsphere.local`."""

    password_file: str
    """File whose first line is the password. Read at every login, so that a changed password needs no restart."""

    port: Port = 443
    """TCP port of the SOAP API; 443 unless a proxy is in between."""

    thumbprint_sha256: str | None = None
    """SHA-256 of the server's certificate in hexadecimal, colons allowed: pins exactly this certificate."""

    ca_file: str | None = None
    """PEM file with the authorities to trust, for vCenter its own VMCA root."""

    verify: bool = True
    """False accepts any certificate: whoever sits in between reads the password. A warning says so at every start."""

    timeout_s: Seconds = 30.0
    """Seconds without a byte after which the server counts as gone. Waits for updates last less than this."""

    keep_alive_s: Seconds = 300.0
    """Seconds without a call after which the session is refreshed; vCenter ends idle sessions after 30 minutes."""
