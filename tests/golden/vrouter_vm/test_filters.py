"""The nftables text, reviewed like code, and accepted by the real nft."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.vrouter_host import make_interfaces, make_network, make_port, make_view
from vrouter_vm.desired import desired_state
from vrouter_vm.model import Elements, MacAddress, Port, Trunk
from vrouter_vm.nft import render_change, render_replacement

HERE = Path(__file__).parent
TRUNK = Trunk(name="eth1", mac=MacAddress("00:50:56:00:00:01"), is_up=True)
VIEW = make_view(make_network("red", 5, "10.1.1.0/24", "fd00:1::/64"), make_network("blue", 6))
FIRST = [make_port(1, addresses=("10.1.1.11", "fd00:1::11")), make_port(2, is_enabled=False), make_port(3, vn="blue")]
THEN = [FIRST[0], make_port(3, vn="red"), make_port(4, vn="blue", addresses=("10.1.1.11",))]


def elements(ports: list[Port]) -> Elements:
    return desired_state(
        ports=ports, networks=VIEW, interfaces=make_interfaces(ports), trunk=TRUNK, has_ipv6=True
    ).elements


RENDERED = {
    "empty-host.nft": render_replacement("eth1", elements([])),
    "three-ports.nft": render_replacement("eth1", elements([*FIRST])),
    "changed-ports.nft": render_change(want=elements([*THEN]), have=elements([*FIRST])),
}


@pytest.mark.parametrize("name", RENDERED)
def test_the_rendered_text_is_the_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden", default=False):
        (HERE / name).write_text(RENDERED[name], encoding="utf-8")
    assert RENDERED[name] == (HERE / name).read_text(encoding="utf-8")


def check(*names: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """What the real nft says, in a network namespace of its own."""
    if shutil.which("nft") is None or os.geteuid() != 0:
        pytest.skip("needs nft and root")
    # `nft -c` does not carry a first file over to a second one, so all but the last are loaded for real.
    *loads, last = [f"nft -f {HERE / name}" for name in names]
    command = " && ".join([*loads, last.replace("nft -f", "nft -c -f") if not text else f"{last} && nft -c -f -"])
    return subprocess.run(
        ["unshare", "-n", "sh", "-c", command], input=text, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("names", [("empty-host.nft",), ("three-ports.nft",), ("three-ports.nft", "changed-ports.nft")])
def test_the_real_nft_accepts_a_golden_file(names: tuple[str, ...]) -> None:
    said = check(*names)
    assert said.returncode == 0, said.stderr


def test_the_real_nft_refuses_a_broken_file() -> None:
    broken = RENDERED["three-ports.nft"].replace("@bind4 return", "@bind5 return")
    said = check("empty-host.nft", text=broken)
    assert said.returncode != 0
    assert "bind5" in said.stderr
