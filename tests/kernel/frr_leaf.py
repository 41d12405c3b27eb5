"""A stock FRR as the fabric's leaf: two VRFs with an L3VNI and a host each. One is network red's, one is its own.

    leaf      eth2 underlay; VRF `red` with the bridge and VXLAN device of VNI 5, eth3 to `backend`;
              VRF `black` with those of VNI 9, eth4 to `office`
    backend   eth0 10.9.0.10, fd00:9::10
    office    eth0 10.10.0.10, fd00:10::10

It knows nothing of us but the route reflector's address and the route targets.

Black shares routes with red by route targets. FRR 8.4 sends with the VNI of the VRF that takes a route in, not with the
one that the route says (RFC 8365, 5.1.3), so black takes red's routes in from the leaf's own VRF red and not straight
from EVPN; and it does not announce them again as its own.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from tests.kernel.overlay_site import ASN, REFLECTOR, UNDERLAY, UNDERLAY_MTU_BYTES
from tests.kernel.site import batch, run, wait_until

VTEP = UNDERLAY[3]
BACKEND, BACKEND6 = "10.9.0.10", "fd00:9::10"
OFFICE, OFFICE6 = "10.10.0.10", "fd00:10::10"
DAEMONS = Path("/usr/lib/frr")


def _configuration(vtep: IPv4Address, *, vni: int) -> str:
    return f"""\
vrf red
 vni {vni}
exit-vrf
vrf black
 vni 9
exit-vrf
ip prefix-list OFFICE permit 10.10.0.0/24
ipv6 prefix-list OFFICE6 permit fd00:10::/64
route-map OFFICE permit 10
 match ip address prefix-list OFFICE
exit
route-map OFFICE6 permit 10
 match ipv6 address prefix-list OFFICE6
exit
router bgp {ASN}
 bgp router-id {vtep}
 no bgp default ipv4-unicast
 neighbor {REFLECTOR} remote-as {ASN}
 neighbor {REFLECTOR} timers 3 9
 neighbor {REFLECTOR} timers connect 1
 address-family l2vpn evpn
  neighbor {REFLECTOR} activate
  advertise-all-vni
 exit-address-family
exit
router bgp {ASN} vrf red
 bgp router-id {vtep}
 address-family ipv4 unicast
  redistribute connected
  rd vpn export {vtep}:105
  rt vpn export {ASN}:5
  export vpn
 exit-address-family
 address-family ipv6 unicast
  redistribute connected
  rd vpn export {vtep}:105
  rt vpn export {ASN}:5
  export vpn
 exit-address-family
 address-family l2vpn evpn
  advertise ipv4 unicast
  advertise ipv6 unicast
  rd {vtep}:{vni}
  route-target import {ASN}:5
  route-target export {ASN}:5
 exit-address-family
exit
router bgp {ASN} vrf black
 bgp router-id {vtep}
 address-family ipv4 unicast
  redistribute connected
  rt vpn import {ASN}:5
  import vpn
 exit-address-family
 address-family ipv6 unicast
  redistribute connected
  rt vpn import {ASN}:5
  import vpn
 exit-address-family
 address-family l2vpn evpn
  advertise ipv4 unicast route-map OFFICE
  advertise ipv6 unicast route-map OFFICE6
  rd {vtep}:9
  route-target import {ASN}:9
  route-target export {ASN}:9
 exit-address-family
exit
"""


def is_installed() -> bool:
    """Is there an FRR?"""
    return (DAEMONS / "bgpd").exists()


@dataclass(kw_only=True)
class Leaf:
    """The leaf; its namespaces are made by `build`."""

    folder: Path
    wire: str = "wire"
    """The namespace that has the underlay, a bridge of that name."""

    vtep: IPv4Address = VTEP
    vni: int = 5
    """Network red's; its route target is 64512:5 whatever this is."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def build(self) -> None:
        """Make its namespaces and devices."""
        mtu = UNDERLAY_MTU_BYTES
        batch(
            "netns add leaf",
            "netns add backend",
            "netns add office",
            f"link add eth2 netns leaf mtu {mtu} type veth peer name leaf netns {self.wire} mtu {mtu}",
            "link add eth3 netns leaf type veth peer name eth0 netns backend",
            "link add eth4 netns leaf type veth peer name eth0 netns office",
        )
        batch("link set leaf master underlay up", namespace=self.wire)
        batch(
            "link set lo up",
            f"addr add {self.vtep}/24 dev eth2",
            "link set eth2 up",
            *_vrf("red", self.vtep, vni=self.vni, nic="eth3", gateways=("10.9.0.1/24", "fd00:9::1/64")),
            *_vrf("black", self.vtep, vni=9, nic="eth4", gateways=("10.10.0.1/24", "fd00:10::1/64")),
            namespace="leaf",
        )
        settings = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.fib_multipath_hash_policy=1"
        run(f"ip netns exec leaf sysctl -qw {settings}")
        for name in (f"vx{self.vni}", "vx9"):
            run(f"bridge -n leaf link set dev {name} neigh_suppress on learning off")
        for host, address, address6 in (("backend", BACKEND, BACKEND6), ("office", OFFICE, OFFICE6)):
            batch(
                "link set eth0 up",
                f"addr add {address}/24 dev eth0",
                f"addr add {address6}/64 dev eth0 nodad",
                f"route add default via {address.removesuffix('0')}",
                f"route add default via {address6.removesuffix('0')}",
                namespace=host,
            )

    def start(self) -> None:
        """Start zebra and bgpd and give them their configuration."""
        for folder in (Path("/etc/frr/leaf"), Path("/var/run/frr/leaf"), Path("/var/log/frr")):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.chown(folder, "frr", "frr")
        shutil.chown("/var/run/frr", "frr", "frr")
        Path("/etc/frr/leaf/vtysh.conf").touch()
        for name in ("zebra", "bgpd"):
            with (self.folder / f"{name}.log").open("ab") as log:
                command = ["ip", "netns", "exec", "leaf", str(DAEMONS / name), "-N", "leaf", "-F", "datacenter"]
                file = Path(f"/etc/frr/leaf/{name}.conf")
                file.touch()
                shutil.chown(file, "frr", "frr")
                command += ["-A", "127.0.0.1", "--log", "stdout"]
                self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            wait_until(Path(f"/var/run/frr/leaf/{name}.vty").exists, what=f"{name} listens")
        file = self.folder / "leaf.vty"
        file.write_text(_configuration(self.vtep, vni=self.vni))
        run(f"ip netns exec leaf vtysh -N leaf -f {file}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End its daemons."""
        for process in reversed(self.processes):
            process.send_signal(number)
            process.wait(30)
        self.processes.clear()
        for name in ("zebra", "bgpd"):
            Path(f"/var/run/frr/leaf/{name}.vty").unlink(missing_ok=True)

    def remove(self) -> None:
        """End everything."""
        self.stop(signal.SIGKILL)
        for name in ("leaf", "backend", "office"):
            with suppress(RuntimeError):
                run(f"ip netns del {name}")

    @staticmethod
    def has_route(prefix: str, *, vrf: str = "red") -> bool:
        """Has a VRF of its own a way to `prefix`?"""
        version = "-6 " if ":" in prefix else ""
        return prefix in run(f"ip -n leaf {version}route show vrf {vrf} {prefix}")

    @staticmethod
    def leads_to(prefix: str, vtep: str, *, vrf: str = "red") -> bool:
        """Does a VRF of its own send what is for `prefix` to `vtep`?"""
        return f"via {vtep} " in run(f"ip -n leaf route show vrf {vrf} {prefix}")

    @staticmethod
    def reaches(address: str, *, host: str = "backend") -> bool:
        """Does a host behind it reach `address`?"""
        command = ["ip", "netns", "exec", host, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _vrf(name: str, vtep: IPv4Address, *, vni: int, nic: str, gateways: tuple[str, ...]) -> list[str]:
    """Commands for a VRF with its L3VNI, in the bridge variant that FRR wants, and a NIC to a host."""
    return [
        f"link add {name} type vrf table {1000 + vni}",
        f"link set {name} up",
        f"link add br{vni} address 02:00:00:00:03:{vni:02x} type bridge",
        f"link set br{vni} master {name} up",
        f"link add vx{vni} type vxlan id {vni} local {vtep} dstport 4789 nolearning",
        f"link set vx{vni} master br{vni} up",
        f"link set {nic} master {name} up",
        *(f"addr add {gateway} dev {nic}{' nodad' if ':' in gateway else ''}" for gateway in gateways),
    ]
