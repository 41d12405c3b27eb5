from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tf_controller.settings import ControllerSettings, load_controller_settings
from tf_reconcile.errors import ConfigError
from tf_runtime.settings import convert_settings

SAMPLE = Path(__file__).parents[3] / "config" / "tf-controller.yaml"


def write(directory: Path, text: str) -> Path:
    path = directory / "tf-controller.yaml"
    path.write_text(text)
    return path


def test_the_sample_loads_and_shows_the_defaults() -> None:
    assert load_controller_settings(SAMPLE).settings == ControllerSettings()


def test_the_sample_shows_every_key_with_a_value_that_is_allowed() -> None:
    lines = [line.removeprefix("# ") for line in SAMPLE.read_text().splitlines()]
    keys = set(ControllerSettings.__struct_fields__)
    begins = [line for line in lines if line.split(":")[0] in keys or line.startswith("  ")]
    raw = yaml.safe_load("\n".join(begins))
    assert raw.keys() == keys
    assert convert_settings(raw, ControllerSettings, file="sample").tls is not None


@pytest.mark.parametrize("listen", ["0.0.0.0:8082", "198.51.100.11:8082", "'[::]:8082'", "controller.example:8082"])
def test_beyond_loopback_it_refuses_to_listen_without_a_token(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_controller_settings(write(tmp_path, f"listen: {listen}"))
    assert error.value.key == "token_file"
    assert str(tmp_path) in str(error.value)


def test_with_a_token_it_listens_anywhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    checked = load_controller_settings(write(tmp_path, f"listen: 0.0.0.0:1\ntoken_file: {tmp_path}/token"))
    assert (checked.host, checked.port, checked.token) == ("0.0.0.0", 1, "secret")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:1", "'[::1]:8082'", "localhost:8082"])
def test_on_loopback_no_token_is_needed(tmp_path: Path, listen: str) -> None:
    assert load_controller_settings(write(tmp_path, f"listen: {listen}")).token is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("nonsense: 1", "nonsense"),
        ("listen: 8082", "listen"),
        ("listen: '8082'", "listen"),
        ("watch_keepalive_s: 0", "watch_keepalive_s"),
        ("tls: {certificate_file: x}", "tls.key_file"),
        ("log: {level: loud}", "log.level"),
        ("token_file: /nonexistent", "token_file"),
    ],
)
def test_an_error_names_the_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_controller_settings(write(tmp_path, text))
    assert error.value.key == key
