"""The files that the image lays, as the programs that read them understand them."""

import shutil
import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).parents[3] / "images" / "files"
FIREWALL = FILES / "common/etc/tf-vsphere/firewall.nft"

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["unshare", "--net", "sh", "-ec", script], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("no right to make a network namespace")
    return done


@needs_nft
def test_the_firewall_loads_and_loads_again() -> None:
    done = in_a_namespace(f"nft -f {FIREWALL}; nft -f {FIREWALL}; nft list ruleset")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("table inet tf-host") == 1


@needs_nft
def test_loading_the_firewall_leaves_the_agents_tables_alone() -> None:
    done = in_a_namespace(f"nft add table inet vrouter; nft -f {FIREWALL}; nft list tables")
    assert "table inet vrouter" in done.stdout, done.stderr


@needs_nft
def test_a_broken_firewall_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "firewall.nft"
    broken.write_text(FIREWALL.read_text().replace("tcp dport 22 accept", "tcp port 22 accept"))
    assert in_a_namespace(f"nft -f {broken}").returncode != 0


def test_no_file_holds_a_key_or_a_password() -> None:
    for path in FILES.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "PRIVATE KEY" not in text
            assert "$6$" not in text
