"""What the speaker tells of a route that is not as BGP has it. `test_wire` has those that are."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.unit.vrouter_vm.overlay.test_wire import GENERATION_107, PREFIX4, ROUTER_MAC, communities, reach
from vrouter_vm.overlay.bgp import ProbeHeard, Withdrawn, path_event
from vrouter_vm.overlay.gobgp import common_pb2, gobgp_pb2
from vrouter_vm.overlay_model import EvpnRoute

SAID = communities(ROUTER_MAC)
REACH = reach(25, 70, bytes([203, 0, 113, 1]), PREFIX4)
KEY = ("203.0.113.1:5", ip_network("10.1.1.11/32"))


EVPN = common_pb2.Family(afi=common_pb2.Family.AFI_L2VPN, safi=common_pb2.Family.SAFI_EVPN)


def told(nlri: bytes, *attributes: bytes) -> object:
    path = gobgp_pb2.Path(neighbor_ip="192.0.2.100", family=EVPN, nlri_binary=nlri, pattrs_binary=attributes)
    return path_event(path)


@pytest.mark.parametrize(
    "attributes",
    [(SAID[:-1], REACH), (GENERATION_107[:-1], SAID, REACH), (b"", REACH), (SAID, REACH[:5] + REACH[-len(PREFIX4) :])],
)
def test_a_route_whose_attributes_cannot_be_read_is_withdrawn(attributes: tuple[bytes, ...]) -> None:
    assert isinstance(told(PREFIX4, SAID, REACH), EvpnRoute)
    assert told(PREFIX4, *attributes) == Withdrawn(key=KEY)


@pytest.mark.parametrize("nlri", [PREFIX4[:-1], PREFIX4.replace(b"\x20\x0a", b"\x21\x0a"), PREFIX4[:1]])
def test_a_route_that_has_no_readable_name_is_left_out(nlri: bytes) -> None:
    assert told(nlri, SAID, reach(25, 70, bytes([203, 0, 113, 1]), nlri)) is None


def test_a_probe_tells_its_number_and_other_routes_of_our_own_tell_nothing() -> None:
    med = bytes([0x80, 4, 4]) + (2**32 - 1).to_bytes(4, "big")
    unicast = common_pb2.Family(afi=common_pb2.Family.AFI_IP, safi=common_pb2.Family.SAFI_UNICAST)
    probe = gobgp_pb2.Path(
        nlri_binary=bytes([32, 127, 0, 0, 1]), family=unicast, pattrs_binary=[b"\x40\x01\x01\x02", med]
    )
    assert path_event(probe) == ProbeHeard(number=2**32 - 1)
    ours = gobgp_pb2.Path(nlri_binary=PREFIX4, family=EVPN, pattrs_binary=[med])
    assert path_event(ours) is None
