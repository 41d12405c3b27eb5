"""What first boot reads of the machine and changes in it, besides files: NICs and their names, running services.

Every change is small and follows a file that was written before; on a first boot, before the network, there is nothing
running to be told.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import Final

from tf_reconcile.errors import Rejected
from vrouter_firstboot.nics import Nic, Role
from vrouter_vm.kernel.mpls import open_mpls
from vrouter_vm.settings import AgentSettings

NET: Final = Path("/sys/class/net")
SETTLE_S: Final = 20
"""How long the kernel and udev may take to find the NICs; they are there long before, as a rule."""


def observe_nics(net: Path = NET) -> list[Nic]:
    """Return the NICs of the hardware: what has a device behind it, so no bridge, VLAN or tunnel."""
    nics = []
    for folder in net.iterdir():
        device = folder / "device"
        if device.exists():
            nics.append(
                Nic(
                    name=folder.name,
                    mac=_text(folder / "address"),
                    label=_label(device),
                    path=str(device.resolve()),
                )
            )
    return nics


def check_kernel(settings: AgentSettings) -> None:
    """Raise `ConfigError` when the running kernel lacks what these settings of the agent need: its own test of it."""
    if settings.overlay is not None and settings.overlay.mpls_over_udp:
        open_mpls(IPv4Address(settings.overlay.vtep)).close()


def wait_for_devices() -> None:
    """Return when udev has worked through what it knows of. A drive that comes later starts another run (udev rule)."""
    _run(["udevadm", "settle", f"--timeout={SETTLE_S}"])


def wait_for_nics(wanted: int) -> list[Nic]:
    """Return the NICs once udev has worked through what it knows of; at once when `wanted` of them are there."""
    nics = observe_nics()
    if len(nics) < wanted:
        wait_for_devices()
        nics = observe_nics()
    return nics


def rename_nics(roles: Mapping[Role, Nic]) -> tuple[str, ...]:
    """Give each NIC its role's name; return the names it gave. A NIC that has such a name and no role gets another.

    At later boots udev has done so by the link files, and there is nothing to do. Raises `Rejected`.
    """
    there = {name for _, name in socket.if_nameindex()}
    renames = {nic.name: str(role) for role, nic in roles.items() if nic.name != role}
    in_the_way = sorted((there & set(renames.values())) - renames.keys())
    free = (name for number in count() if (name := f"tfnic{number}") not in there)
    parked = {name: next(free) for name in (*renames, *in_the_way)}
    for name, other in parked.items():
        _run(["ip", "link", "set", "dev", name, "down"])
        _run(["ip", "link", "set", "dev", name, "name", other])
    for name, wanted in renames.items():
        _run(["ip", "link", "set", "dev", parked[name], "name", wanted])
    return tuple(renames.values())


def restart(units: Iterable[str]) -> None:
    """Have `units` started anew, or for the first time; they need not be up when this returns.

    While the system boots this only adds to what is waiting: the units are ordered after first boot.
    """
    names = list(units)
    if names and _is_booted():
        _run(["systemctl", "restart", "--no-block", *names])


def reload_network(profiles: Iterable[str]) -> None:
    """Have a running NetworkManager read its profiles again and bring `profiles` up as they are now."""
    names = list(profiles)
    if not names or not is_active("NetworkManager.service"):
        return
    _run(["nmcli", "connection", "reload"])
    for name in names:
        _run(["nmcli", "--wait", "20", "connection", "up", "id", name])


def reload_time_servers() -> None:
    """Have a running chronyd read its servers again."""
    if is_active("chronyd.service"):
        _run(["chronyc", "reload", "sources"])


def refresh_prompts() -> None:
    """Have the log-in prompts that are shown already read their text again (agetty(8), --reload). Raises `Rejected`."""
    _run(["agetty", "--reload"])


def set_hostname(name: str) -> None:
    """Set the running kernel's host name."""
    _run(["hostname", name])


def set_password_hash(account: str, password_hash: str) -> None:
    """Let `account` log in on the console with the password of that hash, which goes by standard input."""
    _run(["chpasswd", "--encrypted"], given=f"{account}:{password_hash}\n")


def label_files(paths: Iterable[str]) -> None:
    """Give files the SELinux label of their place, where SELinux is in use."""
    names = list(paths)
    if names and Path("/sys/fs/selinux/enforce").exists():
        _run(["restorecon", *names])


def is_active(unit: str) -> bool:
    """True when systemd runs `unit` now."""
    return _is_booted() and subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


def _is_booted() -> bool:
    """sd_booted(3)."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _run(command: list[str], *, given: str | None = None) -> None:
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Rejected("system", command[0], reason=error.strerror or str(error)) from error
    if done.returncode != 0:
        raise Rejected("system", " ".join(command), reason=(done.stderr or done.stdout).strip())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _label(device: Path) -> str:
    """Return the firmware's name of a PCI device (ACPI _DSM or SMBIOS type 41), empty without one.

    A virtio NIC's device is a child of its PCI device.
    """
    return _text(device / "label") or _text(device / ".." / "label")
