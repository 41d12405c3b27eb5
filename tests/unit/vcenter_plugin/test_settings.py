from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from tf_reconcile.errors import ConfigError
from tf_runtime.settings import convert_settings, load_settings
from vcenter_plugin.settings import PluginSettings

SAMPLE = Path(__file__).resolve().parents[3] / "config" / "vcenter-plugin.yaml"
LEAST = {
    "vcenter": {"host": "vc", "user": "tf", "password_file": "/p"},
    "dvswitch": "dvs",
    "tf": {"servers": ["http://127.0.0.1:8082"]},
}


def test_the_sample_loads() -> None:
    assert load_settings(SAMPLE, PluginSettings).dvswitch == "dvs-tf"


def test_the_sample_shows_every_key_and_every_default() -> None:
    """With each commented key switched on, the sample still says what the defaults are, and lacks no key."""
    uncommented = re.sub(r"^( *)# ( *[a-z0-9_]+:(?: |$))", r"\1\2", SAMPLE.read_text(), flags=re.MULTILINE)
    everything = yaml.safe_load(uncommented)
    shown = convert_settings(everything, PluginSettings, file="sample")
    assert shown == load_settings(SAMPLE, PluginSettings)
    assert _keys(everything) == _keys(msgspec.to_builtins(shown))


def _keys(value: object) -> object:
    return {key: _keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"dvswitches": "x"}, "dvswitches"),
        ({"dvswitch": 7}, "dvswitch"),
        ({"tf": {"servers": []}}, "tf.servers"),
        ({"tenant": {"fq_name": "vCenter"}}, "tenant.fq_name"),
        ({"removal": {"share": 1.5}}, "removal.share"),
        ({"portgroups": {"initial_ports": 0}}, "portgroups.initial_ports"),
        ({"vcenter": {**LEAST["vcenter"], "port": 70000}}, "vcenter.port"),  # type: ignore[dict-item]
        ({"log": {"level": "loud"}}, "log.level"),
        ({"full_period_s": 0}, "full_period_s"),
    ],
)
def test_each_mistake_is_named_with_file_key_and_what_is_allowed(change: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert_settings({**LEAST, **change}, PluginSettings, file="plugin.yaml")
    assert (caught.value.file, caught.value.key) == ("plugin.yaml", key)
    assert caught.value.allowed or caught.value.reason


def test_the_defaults_are_cautious() -> None:
    settings = convert_settings(LEAST, PluginSettings, file="plugin.yaml")
    assert settings.vcenter.verify
    assert not settings.tenant.create
    assert settings.status.listen.startswith("127.0.0.1:")
