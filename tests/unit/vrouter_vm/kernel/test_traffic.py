from __future__ import annotations

from pathlib import Path

from vrouter_vm.kernel.traffic import Traffic, read_traffic


def test_counters_are_read_per_vif_and_one_that_is_gone_is_left_out(tmp_path: Path) -> None:
    counters = tmp_path / "eth1.101" / "statistics"
    counters.mkdir(parents=True)
    for number, name in enumerate(("rx_packets", "rx_bytes", "tx_packets", "tx_bytes"), start=1):
        (counters / name).write_text(f"{number}\n")
    both = ["eth1.101", "eth1.102"]
    assert read_traffic(both, received=None, devices=tmp_path) == {
        "eth1.101": Traffic(received_packets=1, received_bytes=2, sent_packets=3, sent_bytes=4)
    }
    assert read_traffic(both, received=dict.fromkeys(both, (8, 9)), devices=tmp_path) == {
        "eth1.101": Traffic(received_packets=8, received_bytes=9, sent_packets=3, sent_bytes=4)
    }
    assert read_traffic(both, received={"eth1.102": (8, 9)}, devices=tmp_path) == {}
