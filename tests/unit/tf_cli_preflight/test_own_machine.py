from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.tf_cli_preflight.facts import GATEWAY_MAC, NOW, POLICY, site, switch, vsphere
from tf_cli.preflight.model import OwnMachine, Unknown, Verdict
from tf_cli.preflight.own_machine import read_own_machine
from tf_cli.preflight.site_verdicts import judge_own_machine, judge_site
from vcenter_manager.settings import IdentitySettings

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL


def _own(host: str = "esx-a", mac: str = GATEWAY_MAC) -> OwnMachine:
    return OwnMachine(bios_uuids=frozenset({f"bios-{host}", "its-other-form"}), trunk_mac=mac)


@pytest.mark.parametrize(
    ("changes", "verdict", "found", "advice"),
    [
        ({"own_machine": _own()}, PASS, "is vrouter-esx-a on esx-a", ""),
        ({"own_machine": _own("esx-b")}, FAIL, "is vrouter-esx-b on esx-b, but `esxi` leads", "Point `esxi`"),
        ({"own_machine": _own("esx-b"), "esxi": ()}, PASS, "is vrouter-esx-b on esx-b", ""),
        ({"own_machine": _own("esx-c")}, FAIL, "bios-esx-c or its-other-form is none of", "second NIC"),
        (
            {"own_machine": _own(mac="00:50:56:00:00:09")},
            FAIL,
            "identity.trunk_interface has 00:50:56:00:00:09",
            "Name",
        ),
        ({"own_machine": Unknown(reason="cannot read it")}, WARN, "cannot read it", "in its own vRouter VM"),
        ({"own_machine": _own(), "switch": Unknown(reason="gone")}, WARN, "cannot be matched", "Mend"),
        ({"own_machine": _own(), "esxi": (vsphere("esxi", hardware_uuid=None),)}, PASS, "on esx-a", ""),
    ],
)
def test_place(changes: dict[str, Any], verdict: Verdict, found: str, advice: str) -> None:
    (line,) = judge_own_machine(site(**changes))
    assert (line.verdict, found in line.found, advice in line.advice) == (verdict, True, True), line


def test_without_a_managers_file_there_is_no_such_line() -> None:
    assert "this machine" not in [line.check for line in judge_site(site(), POLICY, now=NOW)]


def test_a_switch_without_vrouters_has_no_place_for_us() -> None:
    (line,) = judge_own_machine(site(own_machine=_own(), switch=switch(trunks=())))
    assert line.verdict is FAIL


def _identity(folder: Path, uuid: str) -> IdentitySettings:
    (folder / "product_uuid").write_text(uuid)
    (folder / "eth1").mkdir()
    (folder / "eth1" / "address").write_text(f"{GATEWAY_MAC.upper()}\n")
    return IdentitySettings(
        smbios_uuid_file=str(folder / "product_uuid"), trunk_interface="eth1", interfaces_directory=str(folder)
    )


def test_both_ways_to_write_the_uuid_are_known(tmp_path: Path) -> None:
    own = read_own_machine(_identity(tmp_path, "42160000-1111-4000-8000-00000000000A\n"))
    assert own == OwnMachine(
        bios_uuids=frozenset({"42160000-1111-4000-8000-00000000000a", "00001642-1111-0040-8000-00000000000a"}),
        trunk_mac=GATEWAY_MAC,
    )


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    missing = IdentitySettings(smbios_uuid_file=str(tmp_path / "none"))
    assert read_own_machine(missing) == Unknown(reason=f"cannot read {tmp_path / 'none'}: No such file or directory")
    damaged = _identity(tmp_path, "not a uuid")
    assert read_own_machine(damaged) == Unknown(reason=f"{tmp_path / 'product_uuid'} holds no uuid")
