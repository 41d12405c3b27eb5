"""The sample of tfv's configuration, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tf_cli.settings import TfvSettings
from tf_reconcile.errors import ConfigError
from tf_runtime.settings import convert_settings, load_settings

SAMPLE = Path(__file__).parents[3] / "config" / "tfv.yaml"


def test_the_sample_loads() -> None:
    settings = load_settings(SAMPLE, TfvSettings)
    assert settings.dvswitch == "dvs-tf"
    assert [daemon.host for daemon in settings.daemons] == [None, "esx-a", "esx-a"]


def test_a_daemons_url_must_be_a_base_url() -> None:
    raw = {
        "vcenter": {"host": "h", "user": "u", "password_file": "p"},
        "dvswitch": "d",
        "tf": {"servers": ["http://c:8082"]},
        "daemons": [{"name": "n", "url": "192.0.2.1:9100"}],
    }
    with pytest.raises(ConfigError, match=r"daemons\[0\]\.url"):
        convert_settings(raw, TfvSettings, file="tfv.yaml")
