"""The command boundary: a small program stands in for vmtoolsd and answers as it does (open-vm-tools 12)."""

import sys
from pathlib import Path

import pytest

from tf_reconcile.errors import Transient
from vrouter_firstboot.guestinfo import Guestinfo, is_vmware

PROGRAM = """
import json, pathlib, sys
store = pathlib.Path(sys.argv[1])
values = json.loads(store.read_text())
verb, _, rest = sys.argv[2].partition(" ")
key, _, value = rest.partition(" ")
if verb == "info-set":
    values[key] = value
    store.write_text(json.dumps(values))
    print()
elif key in values:
    print(values[key])
elif key == "guestinfo.broken":
    sys.exit("Failed to communicate with the host")
else:
    sys.stderr.write("No value found\\n")
    sys.exit(1)
"""


@pytest.fixture
def guestinfo(tmp_path: Path) -> Guestinfo:
    program, store = tmp_path / "vmtoolsd.py", tmp_path / "store.json"
    program.write_text(PROGRAM)
    store.write_text('{"guestinfo.tf.settings": "esxi:\\n  host: 192.0.2.21\\n", "guestinfo.cleared": ""}')
    return Guestinfo([sys.executable, str(program), str(store)])


def test_a_value_comes_whole_with_its_line_breaks(guestinfo: Guestinfo) -> None:
    assert guestinfo.get("tf.settings") == "esxi:\n  host: 192.0.2.21"


def test_what_is_not_set_and_what_was_cleared_are_both_absent(guestinfo: Guestinfo) -> None:
    assert guestinfo.get("tf.sealed") is None
    assert guestinfo.get("cleared") is None


def test_a_value_that_was_set_is_read_back(guestinfo: Guestinfo) -> None:
    guestinfo.set("tf.status", "error: esxi.host: missing key")
    assert guestinfo.get("tf.status") == "error: esxi.host: missing key"


def test_no_answer_is_an_error_and_not_an_absence(guestinfo: Guestinfo) -> None:
    with pytest.raises(Transient, match="VMware Tools: info-get broken: Failed to communicate"):
        guestinfo.get("broken")


def test_missing_tools_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="VMware Tools: info-get"):
        Guestinfo([str(tmp_path / "nothing")]).get("tf.settings")


@pytest.mark.parametrize(("vendor", "answer"), [("VMware, Inc.\n", True), ("QEMU\n", False), (None, False)])
def test_vmware_is_told_by_the_smbios_vendor(tmp_path: Path, vendor: str | None, answer: bool) -> None:
    file = tmp_path / "sys_vendor"
    if vendor is not None:
        file.write_text(vendor)
    assert is_vmware(file) is answer
