"""What of the running kernel carries MPLS over UDP: bareudp where it is there, else fou.

Called by `__main__` when the settings want it, and by first boot, which checks settings before they are used. Kernels
are built with one of them or with both: CentOS's have bareudp and not fou, Debian's fou and not bareudp.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from tf_reconcile.errors import ConfigError
from vrouter_vm import names
from vrouter_vm.kernel import rtlink, rttc
from vrouter_vm.kernel.fou import FouPort
from vrouter_vm.kernel.route_socket import RouteSocket
from vrouter_vm.kernel_model import MplsDriver

_MPLS_SETTINGS: Final = Path("/proc/sys/net/mpls")
BAREUDP_MODULES: Final = "bareudp, dummy, sch_ingress, cls_flower, act_tunnel_key and act_mirred"
FOU_MODULES: Final = "ipip and fou"
_NOT_THERE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOENT})


@dataclass(frozen=True, kw_only=True)
class MplsSupport:
    """What carries MPLS over UDP. `fou_port`: that of fou, also where it is not used: it may be open from before."""

    driver: MplsDriver
    fou_port: FouPort | None

    def close(self) -> None:
        """Close our end; what there is in the kernel stays."""
        if self.fou_port is not None:
            self.fou_port.close()


def open_mpls(vtep: IPv4Address) -> MplsSupport:
    """Return what carries MPLS over UDP on this host; raises `ConfigError` when the kernel cannot do it."""
    if not _MPLS_SETTINGS.is_dir():
        raise _missing("MPLS", "mpls_router and mpls_iptunnel")
    port = FouPort.find(vtep, names.MPLS_PORT)
    with RouteSocket() as netlink_socket:
        if has_bareudp(netlink_socket):
            return MplsSupport(driver=MplsDriver.BAREUDP, fou_port=port)
    if port is None:
        raise _missing("MPLS over UDP", f"{BAREUDP_MODULES}, or {FOU_MODULES}")
    return MplsSupport(driver=MplsDriver.FOU, fou_port=port)


def has_bareudp(netlink_socket: RouteSocket) -> bool:
    """Return whether the kernel has bareudp and what leads packets to it; nothing is made.

    What is asked for is incomplete, so the kernel refuses it: as invalid when it knows what that should be.
    """
    no_mac = "00"
    probes = (
        rtlink.create_link(names.MPLS_UDP_DEVICE, "bareudp", b""),
        rtlink.create_link(names.MPLS_DEVICE, "dummy", b"", mac=no_mac),
        rttc.probe_action("tunnel_key"),
        rttc.probe_action("mirred"),
    )
    return _NOT_THERE.isdisjoint(netlink_socket.request(probes))


def _missing(what: str, modules: str) -> ConfigError:
    return ConfigError(
        f"the kernel has no {what}",
        key="overlay.mpls_over_udp",
        value="true",
        allowed=f"false, or a kernel with the modules {modules} loaded",
    )
