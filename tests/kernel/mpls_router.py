"""A plain Linux router with MPLS over UDP, like TF's ordinary vRouters: nothing of ours but the way BGP is spoken.

    kvm        eth2 underlay; a tunnel to each of our hosts; VRF `red` with eth3 to the guest; label 30 leads into it
    kvm-guest  eth0 10.1.1.50, fd00:1::50 of network red

Set up with iproute2; its speaker is a gobgpd of its own, a client of the same reflector for labelled VPN routes only.
"""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_network
from itertools import chain
from pathlib import Path

from tests.kernel.overlay_site import ASN, REFLECTOR, SPEAKER_OPTIONS, UNDERLAY, UNDERLAY_MTU_BYTES, binary
from tests.kernel.site import batch, run, wait_until
from tf_reconcile.errors import BoundaryError
from vrouter_vm.model import IpNetwork, RouteTarget
from vrouter_vm.overlay.bgp import Speaker, Withdrawn
from vrouter_vm.overlay_model import Family, PeerSettings, RouteKey, VpnRoute

VTEP = UNDERLAY[4]
GUEST, GUEST6 = "10.1.1.50", "fd00:1::50"
LABEL = 30
_MTU_BYTES = 1504


@dataclass(kw_only=True)
class MplsRouter:
    """The router; its namespaces are made by `build`."""

    folder: Path
    peers: tuple[IPv4Address, ...]
    process: subprocess.Popen[bytes] | None = None
    speaker: Speaker | None = None
    heard: dict[RouteKey, VpnRoute] = field(default_factory=dict)

    def build(self) -> None:
        """Make its namespaces and devices."""
        batch(
            "netns add kvm",
            "netns add kvm-guest",
            f"link add eth2 netns kvm mtu {UNDERLAY_MTU_BYTES} type veth peer name kvm netns wire "
            f"mtu {UNDERLAY_MTU_BYTES}",
            "link add eth3 netns kvm type veth peer name eth0 netns kvm-guest",
        )
        batch("link set kvm master underlay up", namespace="wire")
        settings = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.mpls.platform_labels=1000"
        run(f"ip netns exec kvm sysctl -qw {settings} net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0")
        batch(
            "link set lo up",
            f"addr add {VTEP}/24 dev eth2",
            "link set eth2 up",
            "link add red type vrf table 50",
            "link set red up",
            "link set eth3 master red up",
            "addr add 169.254.1.1/32 dev eth3",
            "addr add fe80::1/64 dev eth3 nodad",
            f"route add {GUEST}/32 dev eth3 table 50",
            f"route add {GUEST6}/128 dev eth3 table 50",
            "fou add port 6635 ipproto 137",
            *(f"link add {_tunnel(peer)} mtu {_MTU_BYTES} {_mpls_to(peer)}" for peer in self.peers),
            *(f"link set {_tunnel(peer)} up" for peer in self.peers),
            namespace="kvm",
        )
        run(f"ip -n kvm -f mpls route add {LABEL} dev red")
        for peer in self.peers:
            run(f"ip netns exec kvm sysctl -qw net.mpls.conf.{_tunnel(peer)}.input=1")
        batch(
            "link set eth0 up",
            f"addr add {GUEST}/32 dev eth0",
            f"addr add {GUEST6}/128 dev eth0 nodad",
            "route add 169.254.1.1 dev eth0",
            "route add default via 169.254.1.1",
            f"route add default via fe80::1 dev eth0 src {GUEST6}",
            namespace="kvm-guest",
        )

    def start(self) -> None:
        """Start its speaker: it tells its guest's addresses, and hears ours."""
        socket = self.folder / "kvm.sock"
        command = ["ip", "netns", "exec", "kvm", binary(), "--api-hosts", f"unix://{socket}", *SPEAKER_OPTIONS]
        with (self.folder / "kvm.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(socket.exists, what="the router's speaker listens")
        self.speaker = Speaker(socket)
        self.speaker.start_bgp(asn=ASN, router_id=VTEP)
        self.speaker.announce([self.route(GUEST), self.route(GUEST6)])
        families = (Family.VPN4, Family.VPN6)
        reflector = PeerSettings(
            address=str(REFLECTOR), port=179, password=None, hold_time_s=30, restart_time_s=120, families=families
        )
        self.speaker.set_peers([reflector], asn=ASN, local_address=VTEP)
        threading.Thread(target=self._listen, args=(self.speaker,), daemon=True).start()

    def _listen(self, speaker: Speaker) -> None:
        with suppress(BoundaryError):  # at the end
            for event in chain.from_iterable(speaker.watch()):
                match event:
                    case VpnRoute() as route:
                        self.heard[route.key] = route
                    case Withdrawn(key=key):
                        self.heard.pop(key, None)

    def route(self, address: str) -> VpnRoute:
        """What it tells of an address of its guest."""
        return VpnRoute(
            rd=f"{VTEP}:1",
            prefix=ip_network(address),
            label=LABEL,
            next_hop=VTEP,
            targets=frozenset({RouteTarget(f"{ASN}:5")}),
            generation=100,
        )

    def has_heard(self, address: str) -> bool:
        """Has it a way to an address of network red?"""
        return self._way_to(ip_network(address)) is not None

    def use(self, *addresses: str, label: int | None = None) -> None:
        """Send by what has been heard of these addresses; `label`: with another label than that."""
        for address in addresses:
            way = self._way_to(ip_network(address))
            assert way is not None
            sent = label or way.label
            version = "-6 " if ":" in address else ""
            run(f"ip -n kvm {version}route replace {address} table 50 encap mpls {sent} dev {_tunnel(way.next_hop)}")

    def _way_to(self, prefix: IpNetwork) -> VpnRoute | None:
        target = RouteTarget(f"{ASN}:5")
        return next(
            (each for each in list(self.heard.values()) if each.prefix == prefix and target in each.targets), None
        )

    def remove(self) -> None:
        """End everything."""
        if self.speaker is not None:
            self.speaker.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for name in ("kvm", "kvm-guest"):
            with suppress(RuntimeError):
                run(f"ip netns del {name}")

    @staticmethod
    def reaches(address: str) -> bool:
        """Does its guest reach `address`?"""
        command = ["ip", "netns", "exec", "kvm-guest", "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _tunnel(peer: IPv4Address) -> str:
    return f"to-{peer.packed[-1]}"


def _mpls_to(peer: IPv4Address) -> str:
    return f"type ipip mode mplsip local {VTEP} remote {peer} ttl 64 encap fou encap-sport auto encap-dport 6635"
