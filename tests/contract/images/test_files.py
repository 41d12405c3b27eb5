"""The files that the image lays, as the programs that read them understand them."""

import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from vrouter_firstboot.nics import Role
from vrouter_vm import names
from vrouter_vm.kernel.mpls import BAREUDP_MODULES, FOU_MODULES

FILES = Path(__file__).parents[3] / "images" / "files"
FIREWALL = FILES / "common/etc/tf-vsphere/firewall.nft"

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["unshare", "--net", "sh", "-ec", script], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("no right to make a network namespace")
    return done


@needs_nft
def test_the_firewall_loads_and_loads_again() -> None:
    done = in_a_namespace(f"nft -f {FIREWALL}; nft -f {FIREWALL}; nft list ruleset")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("table inet tf-host") == 1


@needs_nft
def test_loading_the_firewall_leaves_the_agents_tables_alone() -> None:
    done = in_a_namespace(f"nft add table inet vrouter; nft -f {FIREWALL}; nft list tables")
    assert "table inet vrouter" in done.stdout, done.stderr


@needs_nft
def test_a_broken_firewall_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "firewall.nft"
    broken.write_text(FIREWALL.read_text().replace("tcp dport 22 accept", "tcp port 22 accept"))
    assert in_a_namespace(f"nft -f {broken}").returncode != 0


def test_no_file_holds_a_key_or_a_password() -> None:
    for path in FILES.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "PRIVATE KEY" not in text
            assert "$6$" not in text


def test_udev_leaves_alone_the_settings_of_what_the_agent_makes_and_of_nothing_else() -> None:
    text = (FILES / "common/etc/udev/rules.d/99-tf-vsphere.rules").read_text()
    (patterns,) = re.findall(
        r'^ACTION=="add", SUBSYSTEM=="net", KERNEL=="([^"]+)", RUN="/bin/true"$', text, re.MULTILINE
    )

    def is_left_alone(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns.split("|"))

    door = names.format_door(8000)
    ours = [
        *(names.format_vif(Role.TRUNK, 4094), names.format_vrf(1), names.format_vxlan(16777215)),
        *(door, names.inside_of(door), names.format_mpls_tunnel(IPv4Address("192.0.2.1"))),
        *(names.format_mpls_tunnel(IPv4Address("255.255.255.254")), names.MPLS_DEVICE, names.MPLS_UDP_DEVICE),
    ]
    assert [name for name in ours if not is_left_alone(name)] == []
    others = [*Role, "lo", "eth0", "ens192", "enp0s4", "tunl0", "tfnic0"]
    assert [name for name in others if is_left_alone(name)] == []


def test_each_base_loads_what_its_kernel_has_for_mpls_over_udp() -> None:
    loaded = {
        base: set(
            re.findall(r"^\w+$", (FILES / base / "etc/modules-load.d/tf-vsphere-mpls.conf").read_text(), re.MULTILINE)
        )
        for base in ("centos", "debian")
    }
    both = {"mpls_router", "mpls_iptunnel"}
    assert loaded["centos"] == both | {*re.split(r", | and ", BAREUDP_MODULES)}
    assert loaded["debian"] == both | {*re.split(r", | and ", FOU_MODULES)}
