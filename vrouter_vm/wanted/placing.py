"""Pure: whether a port can be served as it is described, and why not, in an operator's words. Called by `state`."""

from __future__ import annotations

from tf_reconcile.errors import DesiredStateError
from vrouter_vm import names
from vrouter_vm.kernel_model import Trunk
from vrouter_vm.model import VLAN_RANGE, Network, Port, PortKind


class NotKnown(DesiredStateError):
    """The port is sound as far as can be seen, but its network or its interface is not known."""

    def __init__(self, subject: str, reason: str, *, vlan: int) -> None:
        super().__init__(subject, reason)
        self.vlan = vlan


def impossible(port: Port, reason: str) -> DesiredStateError:
    """Return the error that holds a port."""
    return DesiredStateError(port.vmi_uuid, reason)


def vlan_of(port: Port) -> int:
    """Return the VLAN that a port claims; raises `DesiredStateError` when it has none that could be served."""
    if port.kind is not PortKind.REMOTE:
        raise impossible(port, f"type {port.kind.value} is not served, only type {PortKind.REMOTE.value} with a VLAN")
    if port.rx_vlan is None or port.tx_vlan is None:
        raise impossible(port, "it has no VLAN")
    if port.rx_vlan != port.tx_vlan:
        raise impossible(port, f"receiving VLAN {port.rx_vlan} and sending VLAN {port.tx_vlan} differ")
    if port.rx_vlan not in VLAN_RANGE:
        raise impossible(port, f"VLAN {port.rx_vlan} is outside {VLAN_RANGE[0]}..{VLAN_RANGE[-1]}")
    return port.rx_vlan


def check_guest(port: Port, trunk: Trunk, *, has_ipv6: bool) -> None:
    """Raise `DesiredStateError` unless the guest's MAC and addresses are ones that a guest can have here."""
    if int(port.mac.partition(":")[0], 16) & 1:
        raise impossible(port, f"MAC {port.mac} is a group address")
    if port.mac == trunk.mac:
        raise impossible(port, f"MAC {port.mac} is the gateway's")
    if not port.addresses:
        raise impossible(port, "it has no address")
    if not has_ipv6 and any(address.version == 6 for address in port.addresses):  # noqa: PLR2004 - IP version
        raise impossible(port, "it has an IPv6 address and the kernel has IPv6 switched off")


def check_network_id(port: Port, network: Network) -> None:
    """Raise `DesiredStateError` unless the network's id is one that the kernel can do."""
    if network.network_id not in names.NETWORK_IDS:
        allowed = f"{names.NETWORK_IDS[0]}..{names.NETWORK_IDS[-1]}"
        raise impossible(port, f"network id {network.network_id} of {network.name} is outside {allowed}")


def check_vni(port: Port, network: Network, vni: int) -> None:
    """Raise `DesiredStateError` unless the VNI is one that a tunnel can have."""
    if vni not in names.VNIS:
        raise impossible(port, f"VNI {vni} of {network.name} is outside {names.VNIS[0]}..{names.VNIS[-1]}")


def check_addresses(port: Port, network: Network) -> None:
    """Raise `DesiredStateError` unless each address lies in a subnet of the network and is not the router's."""
    for address in port.addresses:
        subnet = network.subnet_of(address)
        if subnet is None:
            raise impossible(port, f"address {address} is in no subnet of {network.name}")
        if address == subnet.gateway:
            raise impossible(port, f"address {address} is the gateway of {network.name}")
        if address in network.router_addresses:
            raise impossible(port, f"address {address} is that of the router's services in {network.name}")
