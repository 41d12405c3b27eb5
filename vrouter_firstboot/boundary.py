"""What first boot needs of the machine. The module `machine` is the real one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from vrouter_firstboot.nics import Nic, Role
from vrouter_vm.settings import AgentSettings


class Machine(Protocol):
    """The running system around the files. Every call may raise `Rejected`."""

    def check_kernel(self, settings: AgentSettings) -> None:
        """Raise `ConfigError` when the running kernel lacks what these settings of the agent need."""
        ...

    def wait_for_devices(self) -> None:
        """Return when the devices known so far are set up; a config drive may be among them."""
        ...

    def wait_for_nics(self, wanted: int) -> list[Nic]:
        """Return the NICs of the hardware, at once when `wanted` of them are there."""
        ...

    def rename_nics(self, roles: Mapping[Role, Nic]) -> tuple[str, ...]:
        """Give each NIC its role's name; return the names that were given."""
        ...

    def restart(self, units: Iterable[str]) -> None:
        """Have these units started anew, or for the first time; they need not be up when this returns."""
        ...

    def reload_network(self, profiles: Iterable[str]) -> None:
        """Bring these profiles up as they are now, if the network manager runs."""
        ...

    def reload_time_servers(self) -> None:
        """Use the time servers as they are now, if the time service runs."""
        ...

    def set_hostname(self, name: str) -> None:
        """Set the host name."""
        ...

    def set_password_hash(self, account: str, password_hash: str) -> None:
        """Let the account log in with that password."""
        ...

    def label_files(self, paths: Iterable[str]) -> None:
        """Label files as their place wants."""
        ...
