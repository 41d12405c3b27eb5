"""Reads by what vCenter can recognize the machine that this runs on, as the manager does at its start."""

from __future__ import annotations

from pathlib import Path

from tf_cli.preflight.model import OwnMachine, Unknown
from vcenter_manager.identity import smbios_forms
from vcenter_manager.settings import IdentitySettings


def read_own_machine(settings: IdentitySettings) -> OwnMachine | Unknown:
    """Return this machine's SMBIOS uuid and trunk MAC; unknown where a file cannot be read or holds none."""
    trunk = Path(settings.interfaces_directory) / settings.trunk_interface / "address"
    try:
        bios_uuids = smbios_forms(Path(settings.smbios_uuid_file).read_text(encoding="ascii"))
        trunk_mac = trunk.read_text(encoding="ascii").strip().lower()
    except OSError as error:
        return Unknown(reason=f"cannot read {error.filename}: {error.strerror}")
    except ValueError:
        return Unknown(reason=f"{settings.smbios_uuid_file} holds no uuid")
    return OwnMachine(bios_uuids=bios_uuids, trunk_mac=trunk_mac)
