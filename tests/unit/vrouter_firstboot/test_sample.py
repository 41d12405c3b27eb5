from pathlib import Path

import pytest

from tf_reconcile.errors import ConfigError
from tf_runtime.settings import load_settings
from vrouter_firstboot.__main__ import check_document, main
from vrouter_firstboot.ovf_environment import property_types
from vrouter_firstboot.settings import SiteSettings

SAMPLE = Path(__file__).parents[3] / "config" / "vrouter-vm.yaml"


def test_the_sample_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(SAMPLE)]) == 0
    assert "right" in capsys.readouterr().out


def test_the_sample_names_every_key() -> None:
    text = SAMPLE.read_text()
    for key, _ in property_types():
        assert f"{key.rpartition('.')[2]}:" in text or f"{key.rpartition('.')[2]}," in text, key


def test_the_defaults_that_the_sample_shows_are_the_defaults() -> None:
    shown = load_settings(SAMPLE, SiteSettings)
    assert (shown.esxi.port, shown.esxi.verify, shown.underlay.mtu) == (443, True, 1600)
    assert (shown.trunk.gateway_macs.first, shown.trunk.gateway_macs.last) == ("00:50:56:00:00:00", "00:50:56:3f:ff:ff")
    for line in ("# port: 443", "# verify: true", "# mtu: 1600", '#     first: "00:50:56:00:00:00"'):
        assert line in SAMPLE.read_text()


def test_a_broken_copy_of_the_sample_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "vrouter-vm.yaml"
    broken.write_text(SAMPLE.read_text().replace("address: 192.0.2.31/24", "address: 192.0.2.331/24"))
    with pytest.raises(ConfigError, match=r"underlay\.address: no address"):
        check_document(broken)
