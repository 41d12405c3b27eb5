"""What the benches of the agent's data plane share: networks and ports by the thousand, and shell-free `ip`."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import Final

from vrouter_vm.boundary import Filtering, Forwarding, Interfaces
from vrouter_vm.filters.rules import NO_POLICIES, PolicyView
from vrouter_vm.gateway_mac import MacRange
from vrouter_vm.model import (
    InterfaceSettings,
    InterfaceView,
    ListKey,
    MacAddress,
    Network,
    NetworkView,
    Port,
    PortKind,
    SetKey,
    Subnet,
    VmiUuid,
    VnUuid,
)
from vrouter_vm.reconciler import Reconciler
from vrouter_vm.status import StatusBoard

TRUNK: Final = "eth1"
TRUNK_MAC: Final = "00:50:56:00:00:01"
FIRST_VLAN: Final = 2
FIRST_NETWORK: Final = 1


def make_network(number: int) -> Network:
    """Return network `number` (from 0), with a /16 of its own."""
    prefix = IPv4Network((int(ip_address("10.0.0.0")) + (number << 16), 16))
    return Network(
        vn_uuid=VnUuid(f"00000000-0000-4000-b000-{number:012x}"),
        name=f"default-domain:bench:net-{number}",
        network_id=FIRST_NETWORK + number,
        subnets=(Subnet(prefix=prefix, gateway=prefix[1], dns=None),),
    )


def make_port(number: int, networks: Sequence[Network]) -> Port:
    """Return port `number` (from 0); ports take turns over the networks."""
    network = networks[number % len(networks)]
    return Port(
        vmi_uuid=VmiUuid(f"00000000-0000-4000-8000-{number:012x}"),
        vm_uuid=f"00000000-0000-4000-9000-{number:012x}",
        vn_uuid=network.vn_uuid,
        project_uuid="00000000-0000-4000-a000-000000000001",
        display_name=f"guest-{number}",
        system_name=f"guest-{number}",
        addresses=(network.subnets[0].prefix[10 + number // len(networks)],),
        mac=MacAddress(f"00:50:56:80:{number >> 8:02x}:{number & 255:02x}"),
        kind=PortKind.REMOTE,
        rx_vlan=FIRST_VLAN + number,
        tx_vlan=FIRST_VLAN + number,
        vhostuser_mode=0,
        is_enabled=True,
        added_at=float(number),
    )


@dataclass(kw_only=True)
class Given:
    """Ports, their networks and interfaces, as a reconciler's sources; nothing of it changes unless it is said so."""

    known_ports: dict[VmiUuid, Port]
    networks: dict[VnUuid, Network]
    changed: frozenset[VmiUuid] = frozenset()

    def ports(self) -> tuple[Port, ...]:
        """Return all ports."""
        return tuple(self.known_ports.values())

    def get(self, vmi_uuid: VmiUuid) -> Port | None:
        """Return a port."""
        return self.known_ports.get(vmi_uuid)

    def take_changes(self) -> frozenset[VmiUuid]:
        """Return the ports that have changed."""
        changed, self.changed = self.changed, frozenset()
        return changed


@dataclass(frozen=True)
class GivenNetworks:
    """The networks' side of `Given`."""

    given: Given

    def take_changes(self) -> frozenset[VnUuid]:
        """Return none."""
        return frozenset()

    def view(self, needed: frozenset[VnUuid], *, of: frozenset[VnUuid] | None = None) -> NetworkView:
        """Return what is asked for."""
        asked = needed if of is None else needed & of
        return NetworkView(known={vn: self.given.networks[vn] for vn in asked}, missing={}, is_pending=False)


class PlainInterfaces:
    """Interfaces of which TF has nothing particular."""

    def take_changes(self) -> frozenset[VmiUuid]:
        """Return none."""
        return frozenset()

    def view(self, needed: frozenset[VmiUuid], *, of: frozenset[VmiUuid] | None = None) -> InterfaceView:
        """Return what is asked for."""
        asked = needed if of is None else needed & of
        known = {vmi_uuid: InterfaceSettings(vmi_uuid=vmi_uuid) for vmi_uuid in asked}
        return InterfaceView(known=known, missing={}, is_pending=False)

    def take_policy_changes(self) -> frozenset[ListKey | SetKey]:
        """Return none."""
        return frozenset()

    def policies(self, of: frozenset[ListKey | SetKey] | None = None) -> PolicyView:
        """Return none."""
        return NO_POLICIES


def make_reconciler(
    given: Given, *, interfaces: Interfaces, forwarding: Forwarding, filtering: Filtering, max_flows: int = 0
) -> Reconciler:
    """Return the agent's own reconciler of these ports and networks; 0: a guest may have any number of flows."""
    return Reconciler(
        ports=given,
        networks=GivenNetworks(given),
        interfaces=interfaces,
        forwarding=forwarding,
        filtering=filtering,
        gateway_macs=MacRange(first=MacAddress("00:50:56:00:00:00"), last=MacAddress("00:50:56:3f:ff:ff")),
        board=StatusBoard(),
        max_flows=max_flows,
    )


def ip(*lines: str, namespace: str | None = None) -> None:
    """Carry out `lines` by one `ip -batch`."""
    where = [] if namespace is None else ["-n", namespace]
    subprocess.run(["ip", *where, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Make sockets and open files of this thread in another network namespace (setns(2)) while inside."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(home)
        os.close(there)
        os.close(home)


_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns")
