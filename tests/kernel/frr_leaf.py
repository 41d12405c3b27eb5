"""A stock FRR as the fabric's leaf: the L3VNI of network red in a VRF of its own, and a host behind it.

    leaf      eth2 underlay, VRF `red` with the bridge and VXLAN device of VNI 5, eth3 to the host
    backend   eth0 10.9.0.10, fd00:9::10

It knows nothing of us but the route reflector's address.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.overlay_site import ASN, REFLECTOR, UNDERLAY, UNDERLAY_MTU_BYTES
from tests.kernel.site import batch, run, wait_until

VTEP = UNDERLAY[3]
BACKEND, BACKEND6 = "10.9.0.10", "fd00:9::10"
DAEMONS = Path("/usr/lib/frr")

_CONFIGURATION = f"""\
vrf red
 vni 5
exit-vrf
router bgp {ASN}
 bgp router-id {VTEP}
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
 bgp router-id {VTEP}
 address-family ipv4 unicast
  redistribute connected
 exit-address-family
 address-family ipv6 unicast
  redistribute connected
 exit-address-family
 address-family l2vpn evpn
  advertise ipv4 unicast
  advertise ipv6 unicast
  rd {VTEP}:5
  route-target import {ASN}:5
  route-target export {ASN}:5
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
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def build(self) -> None:
        """Make its namespaces and devices."""
        mtu = UNDERLAY_MTU_BYTES
        batch(
            "netns add leaf",
            "netns add backend",
            f"link add eth2 netns leaf mtu {mtu} type veth peer name leaf netns wire mtu {mtu}",
            "link add eth3 netns leaf type veth peer name eth0 netns backend",
        )
        batch("link set leaf master underlay up", namespace="wire")
        batch(
            "link set lo up",
            f"addr add {VTEP}/24 dev eth2",
            "link set eth2 up",
            "link add red type vrf table 1005",
            "link set red up",
            "link add br5 address 02:00:00:00:03:05 type bridge",
            "link set br5 master red up",
            f"link add vx5 type vxlan id 5 local {VTEP} dstport 4789 nolearning",
            "link set vx5 master br5 up",
            "link set eth3 master red up",
            "addr add 10.9.0.1/24 dev eth3",
            "addr add fd00:9::1/64 dev eth3 nodad",
            namespace="leaf",
        )
        run("ip netns exec leaf sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        run("bridge -n leaf link set dev vx5 neigh_suppress on learning off")
        batch(
            "link set eth0 up",
            f"addr add {BACKEND}/24 dev eth0",
            f"addr add {BACKEND6}/64 dev eth0 nodad",
            "route add default via 10.9.0.1",
            "route add default via fd00:9::1",
            namespace="backend",
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
        file.write_text(_CONFIGURATION)
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
        for name in ("leaf", "backend"):
            with suppress(RuntimeError):
                run(f"ip netns del {name}")

    @staticmethod
    def has_route(prefix: str) -> bool:
        """Has its VRF a way to `prefix`?"""
        version = "-6 " if ":" in prefix else ""
        return prefix in run(f"ip -n leaf {version}route show vrf red {prefix}")

    @staticmethod
    def reaches(address: str) -> bool:
        """Does the host behind it reach `address`?"""
        command = ["ip", "netns", "exec", "backend", "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
