from __future__ import annotations

import pytest

from vrouter_vm.kernel_model import Underlay
from vrouter_vm.overlay.mtu import mpls_mtu_of, mtu_of


@pytest.mark.parametrize(("underlay", "tunnel"), [(1500, 1450), (1549, 1499), (1550, 1500), (1600, 1500), (9000, 1500)])
def test_the_tunnels_mtu_is_the_underlays_less_the_headers_and_no_more_than_guests_use(
    underlay: int, tunnel: int
) -> None:
    assert mtu_of(Underlay(name="eth2", mtu_bytes=underlay)) == tunnel


@pytest.mark.parametrize(("underlay", "tunnel"), [(1500, 1472), (1531, 1503), (1532, 1504), (9000, 1504)])
def test_the_mtu_of_mpls_is_the_underlays_less_the_headers_and_counts_the_label(underlay: int, tunnel: int) -> None:
    assert mpls_mtu_of(Underlay(name="eth2", mtu_bytes=underlay)) == tunnel
