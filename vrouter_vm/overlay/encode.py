"""Pure: our routes as the speaker wants them told, in messages of its API. Called by `bgp`."""

from __future__ import annotations

from typing import Final, assert_never

from vrouter_vm.model import RouteTarget
from vrouter_vm.overlay.gobgp import attribute_pb2, common_pb2, extcom_pb2, gobgp_pb2, nlri_pb2
from vrouter_vm.overlay.wire import MPLS_UDP, ROUTE_TARGET, VXLAN
from vrouter_vm.overlay_model import BgpRoute, EvpnRoute, Family, VpnRoute

FAMILIES: Final = {
    Family.EVPN: common_pb2.Family(afi=common_pb2.Family.AFI_L2VPN, safi=common_pb2.Family.SAFI_EVPN),
    Family.VPN4: common_pb2.Family(afi=common_pb2.Family.AFI_IP, safi=common_pb2.Family.SAFI_MPLS_VPN),
    Family.VPN6: common_pb2.Family(afi=common_pb2.Family.AFI_IP6, safi=common_pb2.Family.SAFI_MPLS_VPN),
}
ORIGIN_INCOMPLETE: Final = 2
_TWO_OCTETS: Final = 2**16
AS_TRANS: Final = 23456  # RFC 6793, in place of a number of four octets


def encode(route: BgpRoute, *, asn: int) -> gobgp_pb2.Path:
    """Return a route as the speaker wants it; `asn`: its AS number."""
    is_ipv4 = route.prefix.version == 4  # noqa: PLR2004 - IP version
    community = extcom_pb2.ExtendedCommunity
    communities = [_encode_target(target) for target in sorted(route.targets)]
    match route:
        case EvpnRoute():
            family, next_hop = FAMILIES[Family.EVPN], str(route.next_hop)
            nlri = nlri_pb2.NLRI(
                evpn_ip_prefix=nlri_pb2.EVPNIPPrefixRoute(
                    rd=_encode_rd(route.rd),
                    esi=nlri_pb2.EthernetSegmentIdentifier(type=0, value=bytes(9)),
                    ethernet_tag=0,
                    ip_prefix=str(route.prefix.network_address),
                    ip_prefix_len=route.prefix.prefixlen,
                    gw_address="0.0.0.0" if is_ipv4 else "::",
                    label=route.vni,
                )
            )
            communities.append(community(encap=extcom_pb2.EncapExtended(tunnel_type=VXLAN)))
            communities.append(community(router_mac=extcom_pb2.RouterMacExtended(mac=route.router_mac)))
        case VpnRoute():
            # An IPv6 route names an IPv4 next hop in IPv6's form (RFC 4659, 3.2.1.2).
            family, next_hop = FAMILIES[route.family], f"{'' if is_ipv4 else '::ffff:'}{route.next_hop}"
            nlri = nlri_pb2.NLRI(
                labeled_vpn_ip_prefix=nlri_pb2.LabeledVPNIPAddressPrefix(
                    labels=[route.label],
                    rd=_encode_rd(route.rd),
                    prefix=str(route.prefix.network_address),
                    prefix_len=route.prefix.prefixlen,
                )
            )
            communities.append(community(encap=extcom_pb2.EncapExtended(tunnel_type=MPLS_UDP)))
        case _:
            assert_never(route)
    if route.bandwidth:
        link = extcom_pb2.LinkBandwidthExtended(asn=asn if asn < _TWO_OCTETS else AS_TRANS, bandwidth=route.bandwidth)
        communities.append(community(link_bandwidth=link))
    attribute = attribute_pb2.Attribute
    attributes = [
        attribute(origin=attribute_pb2.OriginAttribute(origin=ORIGIN_INCOMPLETE)),
        attribute(mp_reach=attribute_pb2.MpReachNLRIAttribute(family=family, next_hops=[next_hop], nlris=[nlri])),
        attribute(local_pref=attribute_pb2.LocalPrefAttribute(local_pref=route.generation)),
        attribute(extended_communities=attribute_pb2.ExtendedCommunitiesAttribute(communities=communities)),
    ]
    if route.med:
        attributes.append(attribute(multi_exit_disc=attribute_pb2.MultiExitDiscAttribute(med=route.med)))
    return gobgp_pb2.Path(nlri=nlri, family=family, pattrs=attributes)


def _encode_target(target: RouteTarget) -> extcom_pb2.ExtendedCommunity:
    administrator, _, text = target.partition(":")
    number, community = int(text), extcom_pb2.ExtendedCommunity
    if "." in administrator:
        address = extcom_pb2.IPv4AddressSpecificExtended(
            is_transitive=True, sub_type=ROUTE_TARGET, address=administrator, local_admin=number
        )
        return community(ipv4_address_specific=address)
    asn = int(administrator)
    if asn < _TWO_OCTETS:
        two_octets = extcom_pb2.TwoOctetAsSpecificExtended(
            is_transitive=True, sub_type=ROUTE_TARGET, asn=asn, local_admin=number
        )
        return community(two_octet_as_specific=two_octets)
    four_octets = extcom_pb2.FourOctetAsSpecificExtended(
        is_transitive=True, sub_type=ROUTE_TARGET, asn=asn, local_admin=number
    )
    return community(four_octet_as_specific=four_octets)


def _encode_rd(rd: str) -> common_pb2.RouteDistinguisher:
    administrator, _, assigned = rd.rpartition(":")
    return common_pb2.RouteDistinguisher(
        ip_address=common_pb2.RouteDistinguisherIPAddress(admin=administrator, assigned=int(assigned))
    )
