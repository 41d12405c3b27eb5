"""`tfv confirm` writes the fingerprint where the daemon looks, and nothing that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tf_cli.__main__ import main
from tf_reconcile.errors import ConfigError
from tf_runtime.removals import ConfirmedRemovals, RemovalSettings

FINGERPRINT = "0123456789abcdef"
VCENTER = "{host: vc, user: u, password_file: p}"
FILES = {
    "plugin": f"vcenter: {VCENTER}\ndvswitch: dvs\ntf: {{servers: ['http://tf:8082']}}\n",
    "manager": f"esxi: {VCENTER}\nvcenter: {VCENTER}\ndvswitch: dvs\ntf: {{servers: ['http://tf:8082']}}\n",
}


def configured(daemon: str, folder: Path) -> Path:
    file = folder / f"{daemon}.yaml"
    file.write_text(FILES[daemon] + f"removal: {{confirm_file: {folder / 'run' / 'confirm'}}}\n")
    return file


@pytest.mark.parametrize("daemon", FILES)
def test_the_daemon_finds_what_was_confirmed(daemon: str, tmp_path: Path) -> None:
    file = configured(daemon, tmp_path)
    assert main(["confirm", daemon, FINGERPRINT, "-c", str(file)]) == 0
    settings = RemovalSettings(confirm_file=str(tmp_path / "run" / "confirm"))
    assert ConfirmedRemovals(settings)().confirmed == FINGERPRINT


def test_what_is_no_fingerprint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="16 hexadecimal digits"):
        main(["confirm", "plugin", "yes", "-c", str(configured("plugin", tmp_path))])
    assert not (tmp_path / "run").exists()


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file, no folder")
    with pytest.raises(ConfigError, match=r"removal\.confirm_file"):
        main(["confirm", "plugin", FINGERPRINT, "-c", str(configured("plugin", tmp_path))])


def test_without_a_file_nothing_is_confirmed(tmp_path: Path) -> None:
    limit = ConfirmedRemovals(RemovalSettings(confirm_file=str(tmp_path / "none")))()
    assert (limit.most, limit.share, limit.confirmed) == (20, 0.5, "")
