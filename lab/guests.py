"""Gives the guests what DHCP and router advertisements would: the addresses that TF has for the NIC, and the gateway.
One that is told to asks for it by DHCP instead.

Called by `lab.running`. Level-triggered: the feed of vNICs and TF's notifications only wake it; every turn compares all
addresses that should be with those it has set. Guests on networks that TF does not know have a fixed address.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Final, TypeAlias

from lab.dvswitch import guest_interface
from lab.feed import Feed, Nic, follow
from lab.tools import ToolError, run_batch, run_tool
from tf_api.client import ConfigApi
from tf_api.model import VIRTUAL_NETWORK_FIELDS, IpAddress, VirtualNetwork, parse_virtual_network
from tf_api.watch import Watch
from tf_cli.status import read_interfaces
from tf_reconcile.errors import BoundaryError

log = logging.getLogger(__name__)

DHCP_SCRIPT: Final = Path(__file__).parent / "udhcpc-script"
RETRY_S: Final = 0.5
PERIOD_S: Final = 5.0
IPV6: Final = 6
ROUTER: Final = IPv6Address("fe80::1")
"""The vRouter's link-local address on every vif, which its router advertisements come from."""

IpInterface: TypeAlias = IPv4Interface | IPv6Interface

NicId: TypeAlias = tuple[str, str, str]
"""Which interface: namespace, name in it, MAC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An address of a guest's interface, and the default route of its family."""

    address: IpInterface
    gateway: IpAddress | None = None


Leases: TypeAlias = tuple[Lease, ...]
"""All of an interface, IPv4 first."""


def lease_lines(interface: str, leases: Leases) -> Iterable[str]:
    """The `ip` commands that make `leases` the interface's only configuration."""
    yield f"addr flush dev {interface} scope global"
    for lease in leases:
        yield f"addr add {lease.address} dev {interface}{' nodad' if lease.address.version == IPV6 else ''}"
        if lease.gateway is not None:
            yield f"route replace default via {lease.gateway} dev {interface}"


class GuestAddresses:
    """Keeps the guests' addresses right, from `start()` to `stop()`, on a thread of its own."""

    def __init__(self, api: ConfigApi, control: str, *, fixed: Mapping[str, IpInterface]) -> None:
        self._api = api
        self._control = control
        self._fixed = {name: (Lease(address=address),) for name, address in fixed.items()}
        self._condition = threading.Condition()
        self._is_woken = False
        self._is_stopping = False
        self._feed = Feed(generation=-1, nics=())
        self._set: dict[NicId, Leases] = {}
        self._watch = Watch(api, ["instance-ip", "virtual-machine-interface"], self._wake)
        self._threads = [
            threading.Thread(target=self._follow, name="guests-feed", daemon=True),
            threading.Thread(target=self._run, name="guests", daemon=True),
        ]

    def start(self) -> None:
        """Begin; returns at once."""
        self._watch.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the thread that sets addresses. The one that follows the feed ends with the simulator."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        self._watch.stop()
        self._threads[1].join()

    def fix(self, vm_name: str, address: IpInterface, gateway: IpAddress) -> None:
        """Configure a guest by hand, as its owner can; what TF has for it replaces that as soon as there is such."""
        with self._condition:
            self._fixed[vm_name] = (Lease(address=address, gateway=gateway),)
        self._wake()

    def address_of(self, vm_name: str) -> IpAddress | None:
        """The first address that the guest's first interface has now: the IPv4 one if there is one."""
        return next(iter(self.addresses_of(vm_name)), None)

    def addresses_of(self, vm_name: str) -> list[IpAddress]:
        """All addresses that the guest's interfaces have now."""
        with self._condition:
            return [
                lease.address.ip for (name, _, _), leases in self._set.items() if name == vm_name for lease in leases
            ]

    def take_by_dhcp(self, vm_name: str) -> IpInterface:
        """Have a guest drop its IPv4 configuration and ask for one by DHCP, as one does that boots; return what it got.

        Raises `ToolError` with the client's words when nobody answers.
        """
        with self._condition:
            namespace, interface = next((name, nic) for name, nic, _ in self._set if name == vm_name)
        inside = ["ip", "netns", "exec", namespace]
        client = ["busybox", "udhcpc", "-i", interface, "-n", "-q", "-f", "-t", "10", "-T", "2", "-O", "mtu"]
        run_tool([*inside, *client, "-s", str(DHCP_SCRIPT)])
        listed = json.loads(run_tool([*inside, "ip", "-j", "-4", "address", "show", "dev", interface]))
        return next(ip_interface(f"{found['local']}/{found['prefixlen']}") for found in listed[0]["addr_info"])

    def has_tf_address(self, vm_name: str) -> bool:
        """Has the guest the address that TF has for it?"""
        with self._condition:
            fixed = self._fixed.get(vm_name)
            return any(name == vm_name and leases != fixed for (name, _, _), leases in self._set.items())

    def _wake(self) -> None:
        with self._condition:
            self._is_woken = True
            self._condition.notify_all()

    def _follow(self) -> None:
        for feed in follow(self._control):
            with self._condition:
                self._feed = feed
            self._wake()

    def _run(self) -> None:
        delay_s = PERIOD_S
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._is_woken or self._is_stopping, delay_s)
                if self._is_stopping:
                    return
                self._is_woken = False
                nics = [nic for nic in self._feed.nics if nic.is_powered_on]
                fixed = dict(self._fixed)
            try:
                wanted = self._leases(nics, fixed)
            except BoundaryError as error:
                log.info("no addresses from the config API", extra={"reason": str(error)})
                delay_s = RETRY_S
                continue
            delay_s = PERIOD_S if self._apply(wanted) else RETRY_S

    def _leases(self, nics: Iterable[Nic], fixed: Mapping[str, Leases]) -> dict[NicId, Leases]:
        nics = list(nics)
        from_tf = self._tf_leases({nic.instance_uuid for nic in nics})
        wanted: dict[NicId, Leases] = {}
        for nic in nics:
            leases = from_tf.get((nic.instance_uuid, nic.mac)) or fixed.get(nic.vm_name)
            if leases is not None:
                wanted[nic.vm_name, guest_interface(nic), nic.mac] = leases
        return wanted

    def _tf_leases(self, vm_uuids: Iterable[str]) -> dict[tuple[str, str], Leases]:
        """What TF has, by VM and MAC."""
        interfaces = read_interfaces(self._api, vm_uuids)
        uuids = {interface.network_uuid for interface in interfaces if interface.network_uuid and interface.addresses}
        listing = self._api.list("virtual-network", uuids=sorted(uuids), fields=VIRTUAL_NETWORK_FIELDS)
        networks = {network.uuid: network for network in map(parse_virtual_network, listing)}
        found = {}
        for interface in interfaces:
            if network := networks.get(interface.network_uuid or ""):
                leases = (_lease(ip_address(address), network) for address in interface.addresses)
                known = [lease for lease in leases if lease is not None]
                if known:
                    found[interface.vm_uuid, interface.mac] = tuple(sorted(known, key=_order))
        return found

    def _apply(self, wanted: Mapping[NicId, Leases]) -> bool:
        """Set what differs; False if a guest is not there yet."""
        is_complete = True
        for nic_id in self._set.keys() - wanted.keys():
            del self._set[nic_id]
        for nic_id, leases in wanted.items():
            if self._set.get(nic_id) == leases:
                continue
            namespace, interface, _ = nic_id
            try:
                run_batch("ip", lease_lines(interface, leases), namespace=namespace)
            except ToolError:
                is_complete = False  # its namespace or its cable comes with the switch's next turn
                continue
            with self._condition:
                self._set[nic_id] = leases
        return is_complete


def _lease(address: IpAddress, network: VirtualNetwork) -> Lease | None:
    subnet = network.subnet_of(address)
    if subnet is None:
        return None
    if isinstance(address, IPv6Address):  # no prefix is on the link: neighbours are reached by the router
        return Lease(address=IPv6Interface(address), gateway=ROUTER)
    return Lease(address=ip_interface(f"{address}/{subnet.prefix.prefixlen}"), gateway=subnet.gateway)


def _order(lease: Lease) -> tuple[int, int]:
    return lease.address.version, int(lease.address)
