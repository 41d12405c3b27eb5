"""Where am I? The proof that this vRouter VM sits on the ESXi that its manager drives. Pure.

A manager that drives another ESXi would give that host's guests ids for vifs that are elsewhere. So before any write:
our own SMBIOS uuid is among that ESXi's VMs, our trunk NIC is connected to our dvSwitch, and no second vRouter VM runs
there (another running VM on the same trunk portgroup).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from vcenter_manager.model import Guest, MacAddress, SwitchUuid, VmUuid


def smbios_forms(text: str) -> frozenset[str]:
    """Return the ways in which vSphere may write the SMBIOS uuid that Linux shows as `text`.

    SMBIOS 2.6 stores the first three fields little-endian; Linux and VMware do not always read them alike
    (DSP0134, 7.2.1). Raises ValueError when `text` is no uuid.
    """
    own = uuid.UUID(text.strip())
    return frozenset({str(own), str(uuid.UUID(bytes=own.bytes_le))})


def find_own_vm(guests: Mapping[VmUuid, Guest], own_uuids: frozenset[str]) -> Guest | None:
    """Return the VM among `guests` that this process runs in, or None when this is another host."""
    return next((guest for guest in guests.values() if guest.bios_uuid.lower() in own_uuids), None)


def find_problem(
    guests: Mapping[VmUuid, Guest],
    *,
    own_uuids: frozenset[str],
    trunk_mac: MacAddress,
    switch_uuid: SwitchUuid,
) -> str | None:
    """Return what is wrong about our place, in one sentence; None when it is proved."""
    own = find_own_vm(guests, own_uuids)
    if own is None:
        return "this vRouter VM is not among the VMs of the configured ESXi"
    trunk = next((nic for nic in own.nics if nic.mac == trunk_mac), None)
    if trunk is None:
        return f"{own.name} has no NIC with the MAC {trunk_mac} of the trunk interface"
    if trunk.dvport is None or trunk.dvport.switch_uuid != switch_uuid:
        return f"the trunk NIC {trunk_mac} of {own.name} is not on the configured dvSwitch"
    if not trunk.is_connected:
        return f"the trunk NIC {trunk_mac} of {own.name} is not connected"
    others = sorted(
        guest.name
        for guest in guests.values()
        if guest.vm_uuid != own.vm_uuid
        and guest.is_running
        and any(nic.dvport and nic.dvport.portgroup_key == trunk.dvport.portgroup_key for nic in guest.nics)
    )
    if others:
        return f"a second VM is on the trunk portgroup of this host: {', '.join(others)}"
    return None
