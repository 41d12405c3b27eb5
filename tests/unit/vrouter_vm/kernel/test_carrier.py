"""A NIC's carrier, by the file in which the kernel counts its changes."""

from __future__ import annotations

from pathlib import Path

from vrouter_vm.kernel.carrier import CarrierWatch


def test_each_change_of_the_carrier_is_told_once_and_a_nic_that_is_gone_is_not(tmp_path: Path) -> None:
    file = tmp_path / "eth1" / "carrier_changes"
    file.parent.mkdir()
    told: list[str] = []
    watch = CarrierWatch("eth1", on_change=lambda: told.append(file.read_text()), devices=tmp_path)
    for number in ("2\n", "2\n", "3\n", "3\n"):
        file.write_text(number)
        watch.look()
    assert told == ["3\n"]
    file.unlink()
    watch.look()
    file.write_text("5\n")
    watch.look()
    assert told == ["3\n", "5\n"]
