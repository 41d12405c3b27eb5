"""The sample configuration is loaded as it is, and with every commented key put in force."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tf_runtime.settings import convert_settings, load_settings
from vcenter_manager.settings import ManagerSettings
from vcenter_manager.vrouter_ports import AgentKind

SAMPLE = Path(__file__).resolve().parents[3] / "config" / "vcenter-manager.yaml"
_COMMENTED_KEY = re.compile(r"^(?P<indent> *)# (?P<key> *[a-z_0-9]+:.*)$")


def test_the_sample_loads_and_leaves_the_defaults() -> None:
    settings = load_settings(SAMPLE, ManagerSettings)
    assert settings.vlan.ranges == ((1, 4094),)
    assert settings.agent.kind is AgentKind.NATIVE


def test_the_samples_commented_keys_are_all_keys_there_are() -> None:
    lines = [
        f"{found['indent']}{found['key']}" if (found := _COMMENTED_KEY.match(line)) else line
        for line in SAMPLE.read_text().splitlines()
    ]
    raw = yaml.safe_load("\n".join(lines))
    settings = convert_settings(raw, ManagerSettings, file=str(SAMPLE))
    assert set(raw) == set(ManagerSettings.__struct_fields__)
    for name in raw:
        section = getattr(settings, name)
        if hasattr(section, "__struct_fields__"):
            assert set(raw[name]) == set(section.__struct_fields__), name
