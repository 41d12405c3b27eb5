"""The nftables text, reviewed like code, and accepted by the real nft."""

from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.fakes.vrouter_host import make_interfaces, make_network, make_port, make_view
from vrouter_vm.actions import ChangeElements
from vrouter_vm.desired import desired_state
from vrouter_vm.filters import policy
from vrouter_vm.filters.nft import render_change, render_replacement
from vrouter_vm.filters.rules import NO_POLICIES, PolicyRule, PolicyView, Service
from vrouter_vm.kernel_model import Desired, Trunk
from vrouter_vm.model import (
    AddressPair,
    GuestPolicy,
    InterfaceSettings,
    ListKey,
    MacAddress,
    PolicyLayer,
    Port,
    SetKey,
    VnUuid,
)

HERE = Path(__file__).parent
TRUNK = Trunk(name="eth1", mac=MacAddress("00:50:56:00:00:01"), is_up=True)
VIEW = make_view(make_network("red", 5, "10.1.1.0/24", "fd00:1::/64"), make_network("blue", 6))
FIRST = [make_port(1, addresses=("10.1.1.11", "fd00:1::11")), make_port(2, is_enabled=False), make_port(3, vn="blue")]
THEN = [FIRST[0], make_port(3, vn="red"), make_port(4, vn="blue", addresses=("10.1.1.11",))]


def state(ports: list[Port], *settings: InterfaceSettings, policies: PolicyView = NO_POLICIES) -> Desired:
    return desired_state(
        ports=ports,
        networks=VIEW,
        interfaces=make_interfaces(ports, *settings),
        policies=policies,
        trunk=TRUNK,
        has_ipv6=True,
        max_flows=65536,
    )


def replacement(desired: Desired) -> str:
    return render_replacement("eth1", desired.elements, policy_chains=desired.chains)


def change(want: Desired, have: Desired) -> str:
    """The change as the plan makes it."""
    old, new = policy.member_set_names(have.elements), policy.member_set_names(want.elements)
    return render_change(
        ChangeElements(
            subject="filters",
            want=want.elements,
            have=have.elements,
            chains={name: chain for name, chain in want.chains.items() if have.chains.get(name) != chain},
            gone_chains=frozenset(have.chains.keys() - want.chains.keys()),
            new_sets=frozenset(new - old),
            gone_sets=frozenset(old - new),
        )
    )


WEB, DB = SetKey("set:group:web"), SetKey("set:group:db")
OPEN = PolicyRule(
    name="web rule 1",
    passes=True,
    src=((ip_network("10.0.0.0/8"),),),
    services=(Service(protocol=6, dst_ports=(80, 81)),),
)
FROM_WEB = PolicyRule(name="web rule 2", passes=True, src=((WEB,),), services=(Service(dst_ports=(53, 53)),), version=4)
TO_DB = PolicyRule(name="web rule 3", passes=True, dst=((DB,), (ip_network("fd00:9::/64"),)))
LIMITED = InterfaceSettings(
    vmi_uuid=FIRST[0].vmi_uuid,
    is_secured=False,
    address_pairs=(
        AddressPair(prefix=ip_network("10.1.1.99/32")),
        AddressPair(prefix=ip_network("10.9.0.0/24"), mac=MacAddress("02:00:00:00:00:09")),
    ),
    policy=GuestPolicy(
        leaving=(PolicyLayer(name="groups", lists=(ListKey("group:web:leaving"),), passes=False),),
        arriving=(PolicyLayer(name="groups", lists=(ListKey("group:web:arriving"),), passes=False),),
    ),
    max_flows=100,
)
POLICIES = PolicyView(
    lists={ListKey("group:web:arriving"): (OPEN, FROM_WEB), ListKey("group:web:leaving"): (TO_DB,)},
    members={
        WEB: frozenset({(VnUuid("red"), "10.1.1.11"), (VnUuid("blue"), "10.1.1.12")}),
        DB: frozenset({(VnUuid("red"), "10.1.1.0/28"), (VnUuid("red"), "fd00:1::7")}),
    },
)
FEWER = PolicyView(
    lists={ListKey("group:web:arriving"): (OPEN,), ListKey("group:web:leaving"): (TO_DB,)},
    members={DB: frozenset({(VnUuid("red"), "10.1.1.0/28"), (VnUuid("red"), "10.1.1.7")})},
)
RENDERED = {
    "empty-host.nft": replacement(state([])),
    "three-ports.nft": replacement(state([*FIRST])),
    "changed-ports.nft": change(want=state([*THEN]), have=state([*FIRST])),
    "policies.nft": replacement(state([*FIRST], LIMITED, policies=POLICIES)),
    "changed-policies.nft": change(
        want=state([*FIRST], LIMITED, policies=FEWER), have=state([*FIRST], LIMITED, policies=POLICIES)
    ),
    "no-policies.nft": change(want=state([*FIRST]), have=state([*FIRST], LIMITED, policies=POLICIES)),
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


@pytest.mark.parametrize(
    "names",
    [
        ("empty-host.nft",),
        ("three-ports.nft",),
        ("three-ports.nft", "changed-ports.nft"),
        ("policies.nft",),
        ("policies.nft", "changed-policies.nft"),
        ("policies.nft", "no-policies.nft"),
    ],
)
def test_the_real_nft_accepts_a_golden_file(names: tuple[str, ...]) -> None:
    said = check(*names)
    assert said.returncode == 0, said.stderr


def test_the_real_nft_refuses_a_broken_file() -> None:
    broken = RENDERED["three-ports.nft"].replace("@bind4 goto", "@bind5 goto")
    said = check("empty-host.nft", text=broken)
    assert said.returncode != 0
    assert "bind5" in said.stderr
