import io
from pathlib import Path

import pytest

from tf_cli.__main__ import main
from tf_reconcile.errors import ConfigError
from vrouter_firstboot.sealing import generate_key, public_key_of, unseal

KEY = generate_key()
PUBLIC = public_key_of(KEY)


def test_a_secret_of_a_file_and_one_of_standard_input_are_sealed_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "esxi").write_text("first\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("second\n"))
    assert main(["seal", "--key", PUBLIC, f"esxi-password={tmp_path / 'esxi'}", "vcenter-password=-"]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1
    assert unseal(printed, private_key=KEY, file="test") == {"esxi-password": "first", "vcenter-password": "second"}


@pytest.mark.parametrize("argument", ["esxi-password", "esxi-password=", "hunter2"])
def test_a_secret_on_the_command_line_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="esxi-password=FILE"):
        main(["seal", "--key", PUBLIC, argument])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="esxi-password: cannot read the secret"):
        main(["seal", "--key", PUBLIC, f"esxi-password={tmp_path / 'nothing'}"])


def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "esxi").write_text("first\n")
    with pytest.raises(ConfigError, match="not a vRouter VM's public key"):
        main(["seal", "--key", "AAAA", f"esxi-password={tmp_path / 'esxi'}"])
