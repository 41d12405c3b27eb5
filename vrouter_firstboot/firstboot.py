"""The run: find the settings and secrets, check all of them, write what differs, tell whom it concerns.

A wrong document changes nothing that worked: the daemons keep the configuration of the last accepted one. Only the part
that makes the VM reachable is taken from it, if that part is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from tf_reconcile.errors import AgentError, ConfigError
from tf_runtime.settings import convert_settings
from vrouter_firstboot import daemons, network
from vrouter_firstboot.boundary import Machine
from vrouter_firstboot.files import SECRET, File, write_files
from vrouter_firstboot.nics import Nic, Role, assign_roles, management_nic
from vrouter_firstboot.report import Report, State
from vrouter_firstboot.sealing import SECRET_NAMES, check_secrets, generate_key, public_key_of, unseal
from vrouter_firstboot.settings import (
    ManagementSettings,
    NicsSettings,
    ReachableSettings,
    SiteSettings,
    TrunkSettings,
)
from vrouter_firstboot.sources import SEALED_KEY, SETTINGS_FILE, Found, KeyValues, find_settings

CREDENTIALS: Final = "/etc/credstore"
PRIVATE_KEY: Final = "/var/lib/tf-vsphere/seal.key"
KEPT: Final = f"{daemons.FOLDER}/{SETTINGS_FILE}"

CONSOLE_SECRET: Final = "console-password-hash"
NEEDED: Final = ("esxi-password", "vcenter-password")

_SECRET_WORD: Final = re.compile(r"pass|secret|token|key$", re.IGNORECASE)
_HASH: Final = re.compile(r"\$[0-9a-z]+\$[^:\s]+")

_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    daemons.MANAGER_FILE: (daemons.MANAGER_UNIT,),
    daemons.AGENT_FILE: (daemons.AGENT_UNIT,),
    f"{daemons.FOLDER}/esxi-ca.pem": (daemons.MANAGER_UNIT,),
    f"{daemons.FOLDER}/vcenter-ca.pem": (daemons.MANAGER_UNIT,),
    f"{daemons.FOLDER}/tf-ca.pem": (daemons.MANAGER_UNIT, daemons.AGENT_UNIT),
    f"{CREDENTIALS}/esxi-password": (daemons.MANAGER_UNIT,),
    f"{CREDENTIALS}/vcenter-password": (daemons.MANAGER_UNIT,),
    f"{CREDENTIALS}/{daemons.TOKEN_SECRET}": (daemons.MANAGER_UNIT, daemons.AGENT_UNIT),
    f"{CREDENTIALS}/{daemons.BGP_SECRET}": (daemons.AGENT_UNIT,),
    f"{CREDENTIALS}/{daemons.METADATA_SECRET}": (daemons.AGENT_UNIT,),
}
"""Who has to start anew when a file changed. A credential is handed over at the start of a unit."""


@dataclass(slots=True)
class _Findings:
    """What is to be written, and what is wrong, as they come up."""

    files: list[File] = field(default_factory=list)
    roles: Mapping[Role, Nic] | None = None
    problems: list[str] = field(default_factory=list)
    is_accepted: bool = False
    has_open_drive: bool = False
    """A config drive with secrets in the clear is attached."""

    def add(self, error: ConfigError) -> None:
        """Note what is wrong, once."""
        text = _without_secrets(error)
        if text not in self.problems:
            self.problems.append(text)


class FirstBoot:
    """One run over the system below `root`. `guestinfo` is None where the VM is not VMware's."""

    def __init__(
        self,
        *,
        root: Path,
        machine: Machine,
        guestinfo: KeyValues | None,
        drive: Callable[[], AbstractContextManager[Path | None]],
    ) -> None:
        self._root = root
        self._machine = machine
        self._guestinfo = guestinfo
        self._drive = drive

    def run(self) -> Report:
        """Bring the machine in line with its settings; return what came of it. Raises nothing that is expected."""
        private_key = self._private_key()
        public_key = public_key_of(private_key)
        findings = _Findings()
        found: Found | None = None
        try:
            if not self._below(KEPT).is_file():  # the settings may be on a drive that the kernel is just finding
                self._machine.wait_for_devices()
            with self._drive() as drive:
                found = find_settings(guestinfo=self._guestinfo, drive=drive, etc=self._below(daemons.FOLDER))
                self._take_secrets(found, drive, private_key, findings)
        except AgentError as error:
            findings.problems.append(str(error))
        if found is not None:
            self._take_settings(found, findings)
        if not findings.is_accepted:
            self._stay_reachable(found, findings)
        self._apply(findings)
        report = self._report(found, findings, public_key)
        if self._guestinfo is not None:
            report = report.published(self._guestinfo, public_key)
        return report

    def _private_key(self) -> str:
        path = self._below(PRIVATE_KEY)
        if not path.is_file():
            write_files([File(path=PRIVATE_KEY, content=generate_key(), mode=SECRET)], root=self._root)
        return path.read_text(encoding="ascii").strip()

    def _take_secrets(self, found: Found | None, drive: Path | None, private_key: str, findings: _Findings) -> None:
        """Keep the secrets that came along, as systemd credentials; clear those in guestinfo."""
        secrets: dict[str, str] = {}
        sealed = found.sealed if found is not None else None
        if sealed is None and self._guestinfo is not None:
            sealed = self._guestinfo.get(SEALED_KEY)
        if sealed is not None:
            secrets |= unseal(sealed, private_key=private_key, file=_sealed_name(found))
        if drive is not None:
            secrets |= (plain := _plain_secrets(drive / "secrets"))
            findings.has_open_drive = bool(plain)
        console_hash = secrets.pop(CONSOLE_SECRET, None)
        if console_hash is not None and not _HASH.fullmatch(console_hash):
            raise ConfigError(
                "not a password's hash", key=CONSOLE_SECRET, allowed="the output of `mkpasswd` or `openssl passwd -6`"
            )
        files = [File(path=f"{CREDENTIALS}/{name}", content=value, mode=SECRET) for name, value in secrets.items()]
        self._tell_units(write_files(files, root=self._root))
        if console_hash is not None:
            self._machine.set_password_hash(network.ACCOUNT, console_hash)
        if sealed is not None and self._guestinfo is not None and self._guestinfo.get(SEALED_KEY) is not None:
            self._guestinfo.set(SEALED_KEY, "")

    def _take_settings(self, found: Found, findings: _Findings) -> None:
        """Add the files of a document that is right as a whole; else say what is wrong with it."""
        secrets = [name for name in SECRET_NAMES if self._below(f"{CREDENTIALS}/{name}").is_file()]
        try:
            settings = convert_settings({} if found.document is None else found.document, SiteSettings, file=found.file)
            daemons.check_daemons(settings, secrets=secrets, file=found.file, check_kernel=self._machine.check_kernel)
            roles = self._assign(settings.nics, settings.trunk, file=found.file)
            files = [
                *network.render_links(roles),
                *network.render_management(settings.management, file=found.file),
                *network.render_underlay(settings.underlay, file=found.file),
                *daemons.render_daemons(settings, secrets=secrets, file=found.file),
            ]
        except ConfigError as error:
            findings.add(error)
            return
        if found.file != str(self._below(KEPT)):
            files.append(File(path=KEPT, content=yaml.safe_dump(found.document, sort_keys=False, allow_unicode=True)))
        findings.files, findings.roles, findings.is_accepted = files, roles, True

    def _stay_reachable(self, found: Found | None, findings: _Findings) -> None:
        """Add the management network of the document if that much of it is right; else DHCP, unless there is one.

        A VM that has one and is told nothing better keeps it, and its NICs their names.
        """
        file = "" if found is None else found.file
        settings, profile = ReachableSettings(), None
        try:
            if found is not None:
                settings = convert_settings(found.document or {}, ReachableSettings, file=file)
                profile = list(network.render_management(settings.management, file=file))
        except ConfigError as error:
            findings.add(error)
        if profile is None:
            if self._has_profile():
                return
            profile = list(network.render_management(ManagementSettings(), file=file))
        findings.files += profile
        try:
            findings.roles = self._assign(settings.nics, settings.trunk, file=file)
        except ConfigError as error:
            findings.add(error)
            findings.roles = self._management_alone(settings)
        findings.files += network.render_links(findings.roles)

    def _assign(self, nics: NicsSettings, trunk: TrunkSettings, *, file: str) -> dict[Role, Nic]:
        given = {role: getattr(nics, role.setting) for role in Role}
        return assign_roles(
            self._machine.wait_for_nics(len(Role)),
            chosen={role: mac for role, mac in given.items() if mac is not None},
            gateway_macs=_gateway_macs(trunk),
            file=file,
        )

    def _management_alone(self, settings: ReachableSettings) -> dict[Role, Nic]:
        nic = management_nic(
            self._machine.wait_for_nics(len(Role)),
            chosen=settings.nics.management,
            gateway_macs=_gateway_macs(settings.trunk),
        )
        return {} if nic is None else {Role.MANAGEMENT: nic}

    def _apply(self, findings: _Findings) -> None:
        """Write what differs and tell whom it concerns; a step that fails keeps no other from being taken."""
        try:
            changed = write_files(findings.files, root=self._root)
        except AgentError as error:
            findings.problems.append(str(error))
            return
        steps: list[Callable[[], object]] = [lambda: self._machine.label_files(changed)]
        if (roles := findings.roles) is not None:
            steps.append(lambda: self._machine.rename_nics(roles))
        if "/etc/hostname" in changed:
            name = self._below("/etc/hostname").read_text(encoding="ascii").strip()
            steps.append(lambda: self._machine.set_hostname(name))
        profiles = [Path(path).stem for path in changed if path.endswith(".nmconnection")]
        steps.append(lambda: self._machine.reload_network(profiles))
        if any(path.endswith(".sources") for path in changed):
            steps.append(self._machine.reload_time_servers)
        steps.append(lambda: self._tell_units(changed))
        for step in steps:
            try:
                step()
            except AgentError as error:
                findings.problems.append(str(error))

    def _tell_units(self, changed: tuple[str, ...]) -> None:
        units = {unit for path in changed for unit in _UNITS.get(path, ())}
        self._machine.restart(sorted(units, reverse=True))

    def _report(self, found: Found | None, findings: _Findings, public_key: str) -> Report:
        if findings.problems:
            return Report(state=State.ERROR, lines=tuple(findings.problems))
        if found is None:
            waits_for = f"settings: in guestinfo, on a config drive, or in {KEPT}"
            return Report(state=State.WAITING, lines=(waits_for, f"to seal secrets: {public_key}"))
        missing = [name for name in NEEDED if not self._below(f"{CREDENTIALS}/{name}").is_file()]
        if missing:
            return Report(
                state=State.WAITING, lines=(f"secrets: {', '.join(missing)}", f"to seal secrets: {public_key}")
            )
        reminder = (
            ("the config drive has secrets in the clear: detach and destroy it",) if findings.has_open_drive else ()
        )
        return Report(state=State.OK, lines=(f"settings from {found.file}", *reminder))

    def _has_profile(self) -> bool:
        profile = f"/etc/NetworkManager/system-connections/tf-{Role.MANAGEMENT}.nmconnection"
        return self._below(profile).is_file()

    def _below(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _gateway_macs(trunk: TrunkSettings) -> tuple[str, str]:
    return trunk.gateway_macs.first, trunk.gateway_macs.last


def _sealed_name(found: Found | None) -> str:
    return f"guestinfo.{SEALED_KEY}" if found is None else f"secrets beside {found.file}"


def _plain_secrets(folder: Path) -> dict[str, str]:
    """Return the secrets that a config drive carries in the clear, one file each, named as in `SECRET_NAMES`."""
    if not folder.is_dir():
        return {}
    try:
        found = {path.name: path.read_text(encoding="utf-8").rstrip("\r\n") for path in sorted(folder.iterdir())}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "a secret cannot be read", file="config drive", key="secrets", allowed=f"files of {', '.join(SECRET_NAMES)}"
        ) from error
    check_secrets(found, file="config drive: secrets")
    return found


def _without_secrets(error: ConfigError) -> str:
    """Return the error as one line; a value that somebody wrote where a secret has no place is not in it."""
    if error.key is None or not _SECRET_WORD.search(error.key.rpartition(".")[2]):
        return str(error)
    allowed = f"{error.allowed}; secrets are never among the settings, they travel sealed"
    return str(ConfigError(error.reason, file=error.file, key=error.key, allowed=allowed))
