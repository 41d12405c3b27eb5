import base64
from pathlib import Path

import pytest

from tf_reconcile.errors import ConfigError, Transient
from vrouter_firstboot.sources import Found, find_settings, mounted_drive


class Keys:
    def __init__(self, **values: str) -> None:
        self.values = {key.replace("__", "."): value for key, value in values.items()}

    def get(self, key: str) -> str | None:
        return self.values.get(key)

    def set(self, key: str, value: str) -> None:
        self.values[key] = value


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "vrouter-vm.yaml").write_text("dvswitch: from-etc\n")
    return folder


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    folder = tmp_path / "drive"
    folder.mkdir()
    (folder / "vrouter-vm.yaml").write_text("dvswitch: from-drive\n")
    (folder / "sealed").write_text("tf-sealed-1:AAAA\n")
    return folder


def switch(found: Found | None) -> object:
    assert found is not None
    return found.document["dvswitch"]


OVF = (
    '<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" '
    'xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"><PropertySection>'
    '<Property oe:key="dvswitch" oe:value="from-ovf"/></PropertySection></Environment>'
)


def test_guestinfo_counts_before_the_drive_and_the_drive_before_etc(etc: Path, drive: Path) -> None:
    keys = Keys(tf__settings="dvswitch: from-guestinfo", ovfEnv=OVF)
    assert switch(find_settings(guestinfo=keys, drive=drive, etc=etc)) == "from-guestinfo"
    assert switch(find_settings(guestinfo=Keys(ovfEnv=OVF), drive=drive, etc=etc)) == "from-ovf"
    assert switch(find_settings(guestinfo=Keys(), drive=drive, etc=etc)) == "from-drive"
    assert switch(find_settings(guestinfo=None, drive=None, etc=etc)) == "from-etc"


def test_sealed_secrets_come_from_beside_the_settings(etc: Path, drive: Path) -> None:
    keys = Keys(tf__settings="dvswitch: x", tf__sealed="tf-sealed-1:BBBB")
    from_guestinfo = find_settings(guestinfo=keys, drive=drive, etc=etc)
    from_drive = find_settings(guestinfo=None, drive=drive, etc=etc)
    assert from_guestinfo is not None
    assert from_drive is not None
    assert from_guestinfo.sealed == "tf-sealed-1:BBBB"
    assert from_drive.sealed == "tf-sealed-1:AAAA\n"


def test_without_any_source_there_is_nothing(tmp_path: Path) -> None:
    assert find_settings(guestinfo=Keys(), drive=None, etc=tmp_path) is None


def test_an_environment_without_properties_of_ours_is_no_source(etc: Path) -> None:
    empty = OVF.replace("dvswitch", "other.product")
    assert switch(find_settings(guestinfo=Keys(ovfEnv=empty), drive=None, etc=etc)) == "from-etc"


def test_base64_is_undone_when_it_is_declared(etc: Path) -> None:
    text = base64.encodebytes(b"dvswitch: from-guestinfo").decode()
    keys = Keys(tf__settings=text, tf__settings__encoding="base64")
    assert switch(find_settings(guestinfo=keys, drive=None, etc=etc)) == "from-guestinfo"


@pytest.mark.parametrize(
    "keys",
    [
        Keys(tf__settings="dvswitch: x", tf__settings__encoding="gzip"),
        Keys(tf__settings="§", tf__settings__encoding="base64"),
        Keys(tf__settings="dvswitch: [x"),
    ],
)
def test_what_cannot_be_read_is_refused_and_no_other_source_is_taken_instead(etc: Path, keys: Keys) -> None:
    with pytest.raises(ConfigError, match="guestinfo"):
        find_settings(guestinfo=keys, drive=None, etc=etc)


def test_a_drive_that_is_not_there_is_none_and_one_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with mounted_drive(tmp_path / "TFVROUTER") as drive:
        assert drive is None
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Transient, match="config drive: open"), mounted_drive(tmp_path / "loop"):
        pass
