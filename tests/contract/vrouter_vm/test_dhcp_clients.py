"""Real clients on a real link: busybox udhcpc, ISC dhclient, dhcpcd, and the kernel's own router discovery."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from lab.guests import DHCP_SCRIPT
from tests.fakes.guest_frames import GUEST_MAC
from tests.fakes.guest_link import ROUTER_MAC, GuestLink, trunk_with_guests
from tests.fakes.guests import make_placement, make_subnet
from vrouter_vm.guest_services.claim_box import ClaimBox
from vrouter_vm.guest_services.guest import Terms
from vrouter_vm.guest_services.service import Directory, TrunkService
from vrouter_vm.model import DhcpOption, MacAddress, Placement, VmiUuid

SUBNET4 = make_subnet(
    "10.1.1.0/24",
    host_routes=(ip_network("192.168.0.0/16"),),
    dhcp_options=(DhcpOption(name="domain-name", value="red.example"), DhcpOption(name="42", value="10.9.9.1")),
)
SUBNET6 = make_subnet("fd00:1::/64", dhcp_options=(DhcpOption(name="v6-domain-search", value="red.example"),))
PLACEMENT = make_placement(SUBNET4, SUBNET6)
VMI = PLACEMENT.port.vmi_uuid


NETWORKD = Path("/lib/systemd/systemd-networkd")


class Site:
    """Guests on VLANs 101 and 102, of which the service knows the first."""

    def __init__(self, links: list[GuestLink], directory: Directory, service: TrunkService) -> None:
        self.guest, self.stranger = links
        self.directory = directory
        self.service = service

    def tell(self, placement: Placement | None) -> None:
        """Change what the service knows, and wait until it has taken it in."""
        self.directory.inbox.take({VMI: placement}, is_all=False)
        self.service.wake()
        wait_until(lambda: (self.directory.on(101) is None) is (placement is None))


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not claim():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with trunk_with_guests([101, 102]) as links:
        assert links[0].mac == GUEST_MAC
        directory = Directory(lambda: Terms(mtu_bytes=1450, lease_s=3600))
        directory.inbox.take({VMI: PLACEMENT}, is_all=True)
        service = TrunkService(
            "eth1",
            router_mac=MacAddress(ROUTER_MAC),
            directory=directory,
            claims=ClaimBox(lambda: None),
            clock=time.monotonic,
            random=lambda: 0.5,
        )
        service.start()
        try:
            wait_until(lambda: directory.on(101) is not None)
            yield Site(links, directory, service)
        finally:
            service.stop()
        assert service.restarts == 0, service.describe()


def script(directory: Path) -> Path:
    """A client's script: it writes down what it is called with, each call in a file of its own."""
    path = directory / "script"
    path.write_text(
        f'#!/bin/sh\nenv > "{directory}/said.${{reason:-$1}}.new" && '
        f'mv "{directory}/said.${{reason:-$1}}.new" "{directory}/said.${{reason:-$1}}"\n'
    )
    path.chmod(0o755)
    return path


def said(directory: Path, reason: str) -> dict[str, str]:
    lines = (directory / f"said.{reason}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def udhcpc(link: GuestLink, directory: Path, *options: str) -> int:
    need("busybox")
    command = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", str(script(directory))]
    return link.run(*command, *options).returncode


def wait_until_settled(link: GuestLink) -> None:
    """Wait for the guest's link-local address, which the kernel first asks others about."""
    wait_until(lambda: "fe80" in link.run("ip", "-6", "address", "show", "dev", "eth0", "-tentative").stdout)


def dhclient(link: GuestLink, directory: Path, *options: str) -> int:
    need("dhclient")
    (directory / "dhclient.conf").write_text("also request interface-mtu, ntp-servers;\ntimeout 10;\n")
    # Where it may write is laid down for the program by name (AppArmor), so it is run under another.
    program = directory / "client"
    shutil.copy(str(shutil.which("dhclient")), program)
    files = ["-cf", f"{directory}/dhclient.conf", "-lf", f"{directory}/leases", "-pf", f"{directory}/pid"]
    command = [str(program), *options, "-1", "-v", *files, "-sf", str(script(directory)), "eth0"]
    done = link.run(*command)
    pid = directory / "pid"
    if pid.exists():
        link.run("kill", pid.read_text().strip())
    return done.returncode


def test_busybox_gets_its_address_and_all_that_goes_with_it(site: Site, tmp_path: Path) -> None:
    assert udhcpc(site.guest, tmp_path, "-O", "staticroutes", "-O", "mtu", "-O", "ntpsrv") == 0
    bound = said(tmp_path, "bound")
    expected = {
        "ip": "10.1.1.11",
        "subnet": "255.255.255.0",
        "router": "10.1.1.1",
        "dns": "10.1.1.2",
        "domain": "red.example",
        "mtu": "1450",
        "ntpsrv": "10.9.9.1",
        "lease": "3600",
        "serverid": "10.1.1.2",
        "staticroutes": "192.168.0.0/16 10.1.1.1 0.0.0.0/0 10.1.1.1",
    }
    assert {key: bound.get(key) for key in expected} == expected


def test_the_labs_script_configures_a_guest_with_what_it_is_told(site: Site) -> None:
    need("busybox")
    client = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "2", "-T", "1", "-O", "mtu"]
    done = site.guest.run(*client, "-s", str(DHCP_SCRIPT))
    assert done.returncode == 0, done.stderr
    shown = site.guest.run("ip", "-4", "address", "show", "dev", "eth0").stdout
    assert "inet 10.1.1.11/24" in shown
    assert "mtu 1450" in shown
    assert "default via 10.1.1.1" in site.guest.run("ip", "route").stdout


def test_a_guest_that_asks_for_another_address_gets_its_own(site: Site, tmp_path: Path) -> None:
    assert udhcpc(site.guest, tmp_path, "-r", "10.1.1.99") == 0
    assert said(tmp_path, "bound")["ip"] == "10.1.1.11"


def test_nobody_else_gets_an_answer(site: Site, tmp_path: Path) -> None:
    assert udhcpc(site.stranger, tmp_path) != 0, "no port on that VLAN"
    assert site.guest.run("ip", "link", "set", "eth0", "address", "00:50:56:aa:00:77").returncode == 0
    assert udhcpc(site.guest, tmp_path) != 0, "not the guest's MAC"
    assert site.service.counts["spoofed"] > 0
    site.tell(None)
    assert site.guest.run("ip", "link", "set", "eth0", "address", GUEST_MAC).returncode == 0
    assert udhcpc(site.guest, tmp_path) != 0, "its port is gone"


def test_isc_dhclient_gets_an_ipv4_lease(site: Site, tmp_path: Path) -> None:
    assert dhclient(site.guest, tmp_path, "-4") == 0
    bound = said(tmp_path, "BOUND")
    assert (bound["new_ip_address"], bound["new_routers"]) == ("10.1.1.11", "10.1.1.1")
    assert (bound["new_interface_mtu"], bound["new_domain_name"]) == ("1450", "red.example")
    assert bound["new_ntp_servers"] == "10.9.9.1"


def test_isc_dhclient_gets_an_ipv6_lease(site: Site, tmp_path: Path) -> None:
    wait_until_settled(site.guest)
    assert dhclient(site.guest, tmp_path, "-6") == 0
    bound = said(tmp_path, "BOUND6")
    assert (bound["new_ip6_address"], bound["new_ip6_prefixlen"]) == ("fd00:1::11", "128")
    assert bound["new_dhcp6_name_servers"] == "fd00:1::2"
    assert bound["new_dhcp6_domain_search"] == "red.example."


def test_isc_dhclient_gets_the_rest_without_a_lease(site: Site, tmp_path: Path) -> None:
    wait_until_settled(site.guest)
    assert dhclient(site.guest, tmp_path, "-6", "-S") == 0
    assert said(tmp_path, "RENEW6")["new_dhcp6_name_servers"] == "fd00:1::2"
    assert site.service.counts["dhcp6_information_request"] > 0


def dhcpcd(link: GuestLink, directory: Path, version: str) -> None:
    """Run dhcpcd until it has a lease; what it remembers between runs is in a file system of its own."""
    need("dhcpcd", "unshare")
    (directory / "dhcpcd.conf").write_text("duid\noption interface_mtu, domain_name_servers\nnoarp\n")
    client = f"dhcpcd {version} --oneshot --nobackground --timeout 20 -f {directory}/dhcpcd.conf -c /bin/true eth0"
    done = link.run("unshare", "-m", "sh", "-c", f"mount -t tmpfs leases /var/lib/dhcpcd && exec {client}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dhcpcd_gets_both_leases_and_the_router(site: Site, tmp_path: Path) -> None:
    dhcpcd(site.guest, tmp_path, "-4")
    addresses = site.guest.run("ip", "address", "show", "dev", "eth0").stdout
    assert "inet 10.1.1.11/24" in addresses
    dhcpcd(site.guest, tmp_path, "-6")
    addresses = site.guest.run("ip", "address", "show", "dev", "eth0").stdout
    assert "inet6 fd00:1::11/128" in addresses
    assert "via fe80::1" in site.guest.run("ip", "-6", "route", "show", "default").stdout


def test_systemd_networkd_gets_both_leases_and_the_router(site: Site, tmp_path: Path) -> None:
    if not NETWORKD.exists():
        pytest.skip(f"needs {NETWORKD}")
    (tmp_path / "guest.network").write_text(
        "[Match]\nName=eth0\n[Network]\nDHCP=yes\n[DHCPv4]\nUseMTU=yes\nUseHostname=no\n"
    )
    # Its files are in a file system of its own. With /sys read-only it does not wait for udev.
    prepare = "mount -t tmpfs run /run && mount -o remount,ro /sys && mkdir -p /run/systemd/network"
    start = f"{prepare} && cp {tmp_path}/guest.network /run/systemd/network/ && exec {NETWORKD}"
    command = ["ip", "netns", "exec", site.guest.namespace, "unshare", "-m", "sh", "-c", start]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            wait_until(
                lambda: (
                    {"10.1.1.11/24", "fd00:1::11/128"}
                    <= set(site.guest.run("ip", "address", "show", "dev", "eth0").stdout.split())
                )
            )
            assert "via 10.1.1.1" in site.guest.run("ip", "route", "show", "default").stdout
            assert "192.168.0.0/16 via 10.1.1.1" in site.guest.run("ip", "route").stdout
            assert "via fe80::1" in site.guest.run("ip", "-6", "route", "show", "default").stdout
            assert "mtu 1450" in site.guest.run("ip", "link", "show", "eth0").stdout
        finally:
            running.terminate()


def test_the_kernel_learns_router_and_mtu_and_no_address(site: Site) -> None:
    wait_until(lambda: "via fe80::1" in site.guest.run("ip", "-6", "route", "show", "default").stdout)
    assert site.guest.run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu").stdout.strip() == "1450"
    assert "fd00:1:" not in site.guest.run("ip", "-6", "address", "show", "dev", "eth0").stdout
    assert "fd00:1::/64" not in site.guest.run("ip", "-6", "route").stdout


def test_a_change_is_advertised_at_once(site: Site) -> None:
    wait_until(lambda: "via fe80::1" in site.guest.run("ip", "-6", "route", "show", "default").stdout)
    site.tell(replace(PLACEMENT, network=replace(PLACEMENT.network, mtu_bytes=1400)))
    wait_until(lambda: site.guest.run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu").stdout.strip() == "1400")


def test_a_trunk_that_goes_down_and_up_is_served_on(site: Site, tmp_path: Path) -> None:
    for state in ("down", "up"):
        subprocess.run(["ip", "link", "set", "eth1", state], check=True)
    assert udhcpc(site.guest, tmp_path) == 0
    assert site.service.restarts == 0, site.service.describe()


def test_a_guest_that_floods_is_muted_and_the_others_are_served(site: Site, tmp_path: Path) -> None:
    port = replace(
        make_placement(addresses=("10.1.1.12",)).port, vmi_uuid=VmiUuid("other"), mac=MacAddress(site.stranger.mac)
    )
    served = replace(PLACEMENT, port=port, vlan=site.stranger.vlan)
    site.directory.inbox.take({served.port.vmi_uuid: served}, is_all=False)
    site.service.wake()
    sender = (
        "import socket\n"
        "flood = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)\n"
        "flood.bind(('eth0', 0))\n"
        f"frame = bytes.fromhex('{'ff' * 6}{GUEST_MAC.replace(':', '')}0800') + bytes.fromhex('45000020') + bytes(4)"
        " + bytes.fromhex('40110000') + bytes(4) + bytes([255] * 4) + bytes.fromhex('00440043000c0000') + bytes(30)\n"
        "for _ in range(2000): flood.send(frame)\n"
    )
    assert site.guest.run("python3", "-c", sender).returncode == 0
    wait_until(lambda: site.service.describe()["muted_vlans"] == [101])
    assert udhcpc(site.stranger, tmp_path) == 0
    assert said(tmp_path, "bound")["ip"] == "10.1.1.12"
