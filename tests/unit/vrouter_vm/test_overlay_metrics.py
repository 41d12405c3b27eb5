from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from tests.unit.vrouter_vm.overlay.test_evpn import remote
from vrouter_vm.metrics import OverlayMetrics
from vrouter_vm.overlay.exchange import BgpOverlay
from vrouter_vm.overlay.status import OverlayStatus, describe_overlay


def overlay(tmp_path: Path) -> BgpOverlay:
    """One whose speaker is not there."""
    return BgpOverlay(
        socket=tmp_path / "api.sock",
        asn=64512,
        vtep=IPv4Address("192.0.2.1"),
        peers=[],
        cache=tmp_path / "routes.json",
        generations=tmp_path / "generations.json",
        stale_s=600.0,
        settle_s=30.0,
        forgotten_s=129.0,
        boot_id="1",
        clock=lambda: 0.0,
        wall_clock=lambda: 0.0,
        on_change=lambda: None,
    )


def test_the_metrics_tell_that_the_speaker_is_away_and_how_many_routes_there_are(tmp_path: Path) -> None:
    here = overlay(tmp_path)
    here.announce(remote())
    registry = CollectorRegistry()
    registry.register(OverlayMetrics(here))
    lines = generate_latest(registry).decode().splitlines()
    assert "tf_vsphere_speaker_up 0.0" in lines
    assert 'tf_vsphere_overlay_routes{kind="announced"} 1.0' in lines
    assert 'tf_vsphere_overlay_routes{kind="remote"} 0.0' in lines
    assert 'tf_vsphere_overlay_routes{kind="left_out"} 0.0' in lines
    assert 'tf_vsphere_overlay_relists_total{reason="stalled"} 0.0' in lines
    assert 'tf_vsphere_overlay_relists_total{reason="differences"} 0.0' in lines


def test_the_status_tells_how_old_the_cache_is() -> None:
    status = OverlayStatus(
        sessions={}, error="", announced=0, remote=0, stale=0, cached_at=90.0, relists={}, left_out=0, told={}
    )
    assert describe_overlay(status, [], vtep=IPv4Address("192.0.2.1"), now=100.0)["cache_age_s"] == 10.0
