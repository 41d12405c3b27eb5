from __future__ import annotations

from pathlib import Path

import pytest

from vrouter_vm.guest_services.service import GuestMtu


@pytest.mark.parametrize(("underlay_bytes", "guest_bytes"), [(1500, 1450), (1550, 1500), (9000, 1500), (1400, 1350)])
def test_guests_are_told_what_fits_through_the_tunnels_as_the_underlay_is_now(
    tmp_path: Path, underlay_bytes: int, guest_bytes: int
) -> None:
    (tmp_path / "eth2").mkdir()
    mtu = GuestMtu("eth2", devices=tmp_path)
    for now_bytes, told_bytes in ((1600, 1500), (underlay_bytes, guest_bytes)):
        (tmp_path / "eth2" / "mtu").write_text(f"{now_bytes}\n")
        assert mtu() == told_bytes


def test_while_the_underlay_is_gone_they_are_told_what_they_were_and_before_it_came_what_fits_through_ethernet(
    tmp_path: Path,
) -> None:
    mtu = GuestMtu("eth2", devices=tmp_path)
    assert mtu() == 1450
    (tmp_path / "eth2").mkdir()
    (tmp_path / "eth2" / "mtu").write_text("1530\n")
    assert mtu() == 1480
    (tmp_path / "eth2" / "mtu").unlink()
    assert mtu() == 1480


def test_without_tunnels_the_trunk_is_all_there_is() -> None:
    assert GuestMtu(None)() == 1500
