"""The BGP speaker that goes into the image is the one that speaker/ pins, or none."""

import hashlib
from pathlib import Path

import pytest

from images import payload
from images.payload import PROJECT, BuildError, add_speaker, check_speaker

GO_MOD = "module tf-vsphere/speaker\n\nrequire (\n\tgithub.com/osrg/gobgp/v4 v4.8.0 // indirect\n)\n"
GO_SUM = """\
github.com/osrg/gobgp/v4 v4.8.0 h1:Cop=
github.com/osrg/gobgp/v4 v4.8.0/go.mod h1:bJb=
google.golang.org/grpc v1.82.1 h1:Nn=
"""
BUILT = """\
gobgpd: go1.26.8
\tpath\tgithub.com/osrg/gobgp/v4/cmd/gobgpd
\tmod\tgithub.com/osrg/gobgp/v4\tv4.8.0
\t=>\t./gobgp\t(devel)\t
\t
\tdep\tgoogle.golang.org/grpc\tv1.82.1\th1:Nn=
\tbuild\t-buildmode=exe
\tbuild\t-trimpath=true
\tbuild\tCGO_ENABLED=0
"""


def test_a_static_build_of_the_pinned_sources_is_taken() -> None:
    check_speaker(BUILT, go_mod=GO_MOD, go_sum=GO_SUM)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("v4.8.0\n\t=>\t./gobgp\t(devel)\t\n", "v4.8.0\th1:Cop=\n"), r"not what speaker/\*\.patch make"),
        (("./gobgp", "../elsewhere"), r"not what speaker/\*\.patch make"),
        (("h1:Nn=\n", "h1:Nn=\n\t=>\t./grpc\t(devel)\t\n"), r"or more than that"),
        (("h1:Nn=", "h1:Other="), r"grpc v1\.82\.1 h1:Other=, which is not in speaker/go\.sum"),
        (("grpc\tv1.82.1\th1:Nn=", "grpc\tv1.82.2\th1:Nn="), r"grpc v1\.82\.2 .* not in speaker/go\.sum"),
        (("\tmod\tgithub.com/osrg/gobgp/v4\tv4.8.0\n", ""), r"not github\.com/osrg/gobgp/v4 v4\.8\.0"),
        (("CGO_ENABLED=0", "CGO_ENABLED=1"), "not a static build"),
        (("\tbuild\t-trimpath=true\n", ""), "not a static build"),
    ],
)
def test_anything_else_is_refused_by_name(change: tuple[str, str], complaint: str) -> None:
    assert change[0] in BUILT
    with pytest.raises(BuildError, match=complaint):
        check_speaker(BUILT.replace(*change), go_mod=GO_MOD, go_sum=GO_SUM)


def test_another_release_than_the_pinned_one_is_refused_though_its_checksum_is_known() -> None:
    older = GO_SUM + "github.com/osrg/gobgp/v4 v4.7.0 h1:Old=\n"
    with pytest.raises(BuildError, match=r"not github\.com/osrg/gobgp/v4 v4\.8\.0"):
        check_speaker(BUILT.replace("v4.8.0", "v4.7.0"), go_mod=GO_MOD, go_sum=older)


def test_one_that_was_not_built_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "SPEAKER", tmp_path / "gobgpd")
    with pytest.raises(BuildError, match="gobgpd is missing: make build/gobgpd"):
        add_speaker(tmp_path / "bin")


@pytest.mark.skipif(not payload.SPEAKER.is_file(), reason="build/gobgpd is missing: make build/gobgpd")
def test_the_one_that_was_built_here_is_packed_with_its_checksum_and_origin(tmp_path: Path) -> None:
    add_speaker(tmp_path / "bin")
    program = (tmp_path / "bin/gobgpd").read_bytes()
    assert (tmp_path / "bin/gobgpd.sha256").read_text() == f"{hashlib.sha256(program).hexdigest()}  gobgpd\n"
    origin = (tmp_path / "bin/gobgpd.build").read_text()
    assert "github.com/osrg/gobgp/v4\tv4.8.0" in origin
    assert str(PROJECT) not in origin
    assert str(PROJECT).encode() not in program
