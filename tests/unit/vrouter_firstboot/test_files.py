import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tf_reconcile.errors import Rejected
from vrouter_firstboot.files import SECRET, File, write_files


@pytest.fixture(params=[0o077, 0o022])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.usefixtures("_umask")
def test_modes_are_what_is_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    files = [
        File(path="/etc/ssh/authorized_keys.d/tfadmin", content="key\n"),
        File(path="/etc/credstore/esxi-password", content="secret", mode=SECRET),
    ]
    write_files(files, root=tmp_path)
    # sshd reads the keys as the user, so the folders have to let it pass.
    assert mode(tmp_path / "etc/ssh/authorized_keys.d") == 0o755
    assert mode(tmp_path / "etc/ssh/authorized_keys.d/tfadmin") == 0o644
    assert mode(tmp_path / "etc/credstore") == 0o700
    assert mode(tmp_path / "etc/credstore/esxi-password") == 0o600


def test_only_what_differs_is_written_and_named(tmp_path: Path) -> None:
    files = [File(path="/a", content="1"), File(path="/b", content="2")]
    assert write_files(files, root=tmp_path) == ("/a", "/b")
    assert write_files(files, root=tmp_path) == ()
    (tmp_path / "b").chmod(0o600)
    assert write_files(files, root=tmp_path) == ("/b",)


def test_a_rest_of_a_write_that_was_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").write_text("half")
    write_files([File(path="/a", content="whole")], root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "whole"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where a folder has to be")
    with pytest.raises(Rejected, match="write /etc/hostname"):
        write_files([File(path="/etc/hostname", content="a")], root=tmp_path)


def test_a_files_content_is_not_in_its_text() -> None:
    assert "secret" not in repr(File(path="/a", content="secret"))
