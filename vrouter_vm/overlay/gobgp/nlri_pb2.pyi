from vrouter_vm.overlay.gobgp import common_pb2 as _common_pb2
from vrouter_vm.overlay.gobgp import extcom_pb2 as _extcom_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LsNLRIType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LS_NLRI_TYPE_UNSPECIFIED: _ClassVar[LsNLRIType]
    LS_NLRI_TYPE_NODE: _ClassVar[LsNLRIType]
    LS_NLRI_TYPE_LINK: _ClassVar[LsNLRIType]
    LS_NLRI_TYPE_PREFIX_V4: _ClassVar[LsNLRIType]
    LS_NLRI_TYPE_PREFIX_V6: _ClassVar[LsNLRIType]
    LS_NLRI_TYPE_SRV6_SID: _ClassVar[LsNLRIType]

class LsProtocolID(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LS_PROTOCOL_ID_UNSPECIFIED: _ClassVar[LsProtocolID]
    LS_PROTOCOL_ID_ISIS_L1: _ClassVar[LsProtocolID]
    LS_PROTOCOL_ID_ISIS_L2: _ClassVar[LsProtocolID]
    LS_PROTOCOL_ID_OSPF_V2: _ClassVar[LsProtocolID]
    LS_PROTOCOL_ID_DIRECT: _ClassVar[LsProtocolID]
    LS_PROTOCOL_ID_STATIC: _ClassVar[LsProtocolID]
    LS_PROTOCOL_ID_OSPF_V3: _ClassVar[LsProtocolID]

class LsOspfRouteType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LS_OSPF_ROUTE_TYPE_UNSPECIFIED: _ClassVar[LsOspfRouteType]
    LS_OSPF_ROUTE_TYPE_INTRA_AREA: _ClassVar[LsOspfRouteType]
    LS_OSPF_ROUTE_TYPE_INTER_AREA: _ClassVar[LsOspfRouteType]
    LS_OSPF_ROUTE_TYPE_EXTERNAL1: _ClassVar[LsOspfRouteType]
    LS_OSPF_ROUTE_TYPE_EXTERNAL2: _ClassVar[LsOspfRouteType]
    LS_OSPF_ROUTE_TYPE_NSSA1: _ClassVar[LsOspfRouteType]
    LS_OSPF_ROUTE_TYPE_NSSA2: _ClassVar[LsOspfRouteType]
LS_NLRI_TYPE_UNSPECIFIED: LsNLRIType
LS_NLRI_TYPE_NODE: LsNLRIType
LS_NLRI_TYPE_LINK: LsNLRIType
LS_NLRI_TYPE_PREFIX_V4: LsNLRIType
LS_NLRI_TYPE_PREFIX_V6: LsNLRIType
LS_NLRI_TYPE_SRV6_SID: LsNLRIType
LS_PROTOCOL_ID_UNSPECIFIED: LsProtocolID
LS_PROTOCOL_ID_ISIS_L1: LsProtocolID
LS_PROTOCOL_ID_ISIS_L2: LsProtocolID
LS_PROTOCOL_ID_OSPF_V2: LsProtocolID
LS_PROTOCOL_ID_DIRECT: LsProtocolID
LS_PROTOCOL_ID_STATIC: LsProtocolID
LS_PROTOCOL_ID_OSPF_V3: LsProtocolID
LS_OSPF_ROUTE_TYPE_UNSPECIFIED: LsOspfRouteType
LS_OSPF_ROUTE_TYPE_INTRA_AREA: LsOspfRouteType
LS_OSPF_ROUTE_TYPE_INTER_AREA: LsOspfRouteType
LS_OSPF_ROUTE_TYPE_EXTERNAL1: LsOspfRouteType
LS_OSPF_ROUTE_TYPE_EXTERNAL2: LsOspfRouteType
LS_OSPF_ROUTE_TYPE_NSSA1: LsOspfRouteType
LS_OSPF_ROUTE_TYPE_NSSA2: LsOspfRouteType

class NLRI(_message.Message):
    __slots__ = ("prefix", "labeled_prefix", "encapsulation", "vpls", "evpn_ethernet_ad", "evpn_macadv", "evpn_multicast", "evpn_ethernet_segment", "evpn_ip_prefix", "evpn_i_pmsi", "labeled_vpn_ip_prefix", "route_target_membership", "flow_spec", "vpn_flow_spec", "opaque", "ls_addr_prefix", "sr_policy", "mup_interwork_segment_discovery", "mup_direct_segment_discovery", "mup_type_1_session_transformed", "mup_type_2_session_transformed")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    LABELED_PREFIX_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATION_FIELD_NUMBER: _ClassVar[int]
    VPLS_FIELD_NUMBER: _ClassVar[int]
    EVPN_ETHERNET_AD_FIELD_NUMBER: _ClassVar[int]
    EVPN_MACADV_FIELD_NUMBER: _ClassVar[int]
    EVPN_MULTICAST_FIELD_NUMBER: _ClassVar[int]
    EVPN_ETHERNET_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    EVPN_IP_PREFIX_FIELD_NUMBER: _ClassVar[int]
    EVPN_I_PMSI_FIELD_NUMBER: _ClassVar[int]
    LABELED_VPN_IP_PREFIX_FIELD_NUMBER: _ClassVar[int]
    ROUTE_TARGET_MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    FLOW_SPEC_FIELD_NUMBER: _ClassVar[int]
    VPN_FLOW_SPEC_FIELD_NUMBER: _ClassVar[int]
    OPAQUE_FIELD_NUMBER: _ClassVar[int]
    LS_ADDR_PREFIX_FIELD_NUMBER: _ClassVar[int]
    SR_POLICY_FIELD_NUMBER: _ClassVar[int]
    MUP_INTERWORK_SEGMENT_DISCOVERY_FIELD_NUMBER: _ClassVar[int]
    MUP_DIRECT_SEGMENT_DISCOVERY_FIELD_NUMBER: _ClassVar[int]
    MUP_TYPE_1_SESSION_TRANSFORMED_FIELD_NUMBER: _ClassVar[int]
    MUP_TYPE_2_SESSION_TRANSFORMED_FIELD_NUMBER: _ClassVar[int]
    prefix: IPAddressPrefix
    labeled_prefix: LabeledIPAddressPrefix
    encapsulation: EncapsulationNLRI
    vpls: VPLSNLRI
    evpn_ethernet_ad: EVPNEthernetAutoDiscoveryRoute
    evpn_macadv: EVPNMACIPAdvertisementRoute
    evpn_multicast: EVPNInclusiveMulticastEthernetTagRoute
    evpn_ethernet_segment: EVPNEthernetSegmentRoute
    evpn_ip_prefix: EVPNIPPrefixRoute
    evpn_i_pmsi: EVPNIPMSIRoute
    labeled_vpn_ip_prefix: LabeledVPNIPAddressPrefix
    route_target_membership: RouteTargetMembershipNLRI
    flow_spec: FlowSpecNLRI
    vpn_flow_spec: VPNFlowSpecNLRI
    opaque: OpaqueNLRI
    ls_addr_prefix: LsAddrPrefix
    sr_policy: SRPolicyNLRI
    mup_interwork_segment_discovery: MUPInterworkSegmentDiscoveryRoute
    mup_direct_segment_discovery: MUPDirectSegmentDiscoveryRoute
    mup_type_1_session_transformed: MUPType1SessionTransformedRoute
    mup_type_2_session_transformed: MUPType2SessionTransformedRoute
    def __init__(self, prefix: _Optional[_Union[IPAddressPrefix, _Mapping]] = ..., labeled_prefix: _Optional[_Union[LabeledIPAddressPrefix, _Mapping]] = ..., encapsulation: _Optional[_Union[EncapsulationNLRI, _Mapping]] = ..., vpls: _Optional[_Union[VPLSNLRI, _Mapping]] = ..., evpn_ethernet_ad: _Optional[_Union[EVPNEthernetAutoDiscoveryRoute, _Mapping]] = ..., evpn_macadv: _Optional[_Union[EVPNMACIPAdvertisementRoute, _Mapping]] = ..., evpn_multicast: _Optional[_Union[EVPNInclusiveMulticastEthernetTagRoute, _Mapping]] = ..., evpn_ethernet_segment: _Optional[_Union[EVPNEthernetSegmentRoute, _Mapping]] = ..., evpn_ip_prefix: _Optional[_Union[EVPNIPPrefixRoute, _Mapping]] = ..., evpn_i_pmsi: _Optional[_Union[EVPNIPMSIRoute, _Mapping]] = ..., labeled_vpn_ip_prefix: _Optional[_Union[LabeledVPNIPAddressPrefix, _Mapping]] = ..., route_target_membership: _Optional[_Union[RouteTargetMembershipNLRI, _Mapping]] = ..., flow_spec: _Optional[_Union[FlowSpecNLRI, _Mapping]] = ..., vpn_flow_spec: _Optional[_Union[VPNFlowSpecNLRI, _Mapping]] = ..., opaque: _Optional[_Union[OpaqueNLRI, _Mapping]] = ..., ls_addr_prefix: _Optional[_Union[LsAddrPrefix, _Mapping]] = ..., sr_policy: _Optional[_Union[SRPolicyNLRI, _Mapping]] = ..., mup_interwork_segment_discovery: _Optional[_Union[MUPInterworkSegmentDiscoveryRoute, _Mapping]] = ..., mup_direct_segment_discovery: _Optional[_Union[MUPDirectSegmentDiscoveryRoute, _Mapping]] = ..., mup_type_1_session_transformed: _Optional[_Union[MUPType1SessionTransformedRoute, _Mapping]] = ..., mup_type_2_session_transformed: _Optional[_Union[MUPType2SessionTransformedRoute, _Mapping]] = ...) -> None: ...

class IPAddressPrefix(_message.Message):
    __slots__ = ("prefix_len", "prefix")
    PREFIX_LEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix_len: int
    prefix: str
    def __init__(self, prefix_len: _Optional[int] = ..., prefix: _Optional[str] = ...) -> None: ...

class LabeledIPAddressPrefix(_message.Message):
    __slots__ = ("labels", "prefix_len", "prefix")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[int]
    prefix_len: int
    prefix: str
    def __init__(self, labels: _Optional[_Iterable[int]] = ..., prefix_len: _Optional[int] = ..., prefix: _Optional[str] = ...) -> None: ...

class EncapsulationNLRI(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class VPLSNLRI(_message.Message):
    __slots__ = ("rd", "ve_id", "ve_block_offset", "ve_block_size", "label_block_base")
    RD_FIELD_NUMBER: _ClassVar[int]
    VE_ID_FIELD_NUMBER: _ClassVar[int]
    VE_BLOCK_OFFSET_FIELD_NUMBER: _ClassVar[int]
    VE_BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    LABEL_BLOCK_BASE_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    ve_id: int
    ve_block_offset: int
    ve_block_size: int
    label_block_base: int
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., ve_id: _Optional[int] = ..., ve_block_offset: _Optional[int] = ..., ve_block_size: _Optional[int] = ..., label_block_base: _Optional[int] = ...) -> None: ...

class EthernetSegmentIdentifier(_message.Message):
    __slots__ = ("type", "value")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type: int
    value: bytes
    def __init__(self, type: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class EVPNEthernetAutoDiscoveryRoute(_message.Message):
    __slots__ = ("rd", "esi", "ethernet_tag", "label")
    RD_FIELD_NUMBER: _ClassVar[int]
    ESI_FIELD_NUMBER: _ClassVar[int]
    ETHERNET_TAG_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    esi: EthernetSegmentIdentifier
    ethernet_tag: int
    label: int
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., esi: _Optional[_Union[EthernetSegmentIdentifier, _Mapping]] = ..., ethernet_tag: _Optional[int] = ..., label: _Optional[int] = ...) -> None: ...

class EVPNMACIPAdvertisementRoute(_message.Message):
    __slots__ = ("rd", "esi", "ethernet_tag", "mac_address", "ip_address", "labels")
    RD_FIELD_NUMBER: _ClassVar[int]
    ESI_FIELD_NUMBER: _ClassVar[int]
    ETHERNET_TAG_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    esi: EthernetSegmentIdentifier
    ethernet_tag: int
    mac_address: str
    ip_address: str
    labels: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., esi: _Optional[_Union[EthernetSegmentIdentifier, _Mapping]] = ..., ethernet_tag: _Optional[int] = ..., mac_address: _Optional[str] = ..., ip_address: _Optional[str] = ..., labels: _Optional[_Iterable[int]] = ...) -> None: ...

class EVPNInclusiveMulticastEthernetTagRoute(_message.Message):
    __slots__ = ("rd", "ethernet_tag", "ip_address")
    RD_FIELD_NUMBER: _ClassVar[int]
    ETHERNET_TAG_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    ethernet_tag: int
    ip_address: str
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., ethernet_tag: _Optional[int] = ..., ip_address: _Optional[str] = ...) -> None: ...

class EVPNEthernetSegmentRoute(_message.Message):
    __slots__ = ("rd", "esi", "ip_address")
    RD_FIELD_NUMBER: _ClassVar[int]
    ESI_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    esi: EthernetSegmentIdentifier
    ip_address: str
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., esi: _Optional[_Union[EthernetSegmentIdentifier, _Mapping]] = ..., ip_address: _Optional[str] = ...) -> None: ...

class EVPNIPPrefixRoute(_message.Message):
    __slots__ = ("rd", "esi", "ethernet_tag", "ip_prefix", "ip_prefix_len", "gw_address", "label")
    RD_FIELD_NUMBER: _ClassVar[int]
    ESI_FIELD_NUMBER: _ClassVar[int]
    ETHERNET_TAG_FIELD_NUMBER: _ClassVar[int]
    IP_PREFIX_FIELD_NUMBER: _ClassVar[int]
    IP_PREFIX_LEN_FIELD_NUMBER: _ClassVar[int]
    GW_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    esi: EthernetSegmentIdentifier
    ethernet_tag: int
    ip_prefix: str
    ip_prefix_len: int
    gw_address: str
    label: int
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., esi: _Optional[_Union[EthernetSegmentIdentifier, _Mapping]] = ..., ethernet_tag: _Optional[int] = ..., ip_prefix: _Optional[str] = ..., ip_prefix_len: _Optional[int] = ..., gw_address: _Optional[str] = ..., label: _Optional[int] = ...) -> None: ...

class EVPNIPMSIRoute(_message.Message):
    __slots__ = ("rd", "ethernet_tag", "rt")
    RD_FIELD_NUMBER: _ClassVar[int]
    ETHERNET_TAG_FIELD_NUMBER: _ClassVar[int]
    RT_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    ethernet_tag: int
    rt: _extcom_pb2.RouteTarget
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., ethernet_tag: _Optional[int] = ..., rt: _Optional[_Union[_extcom_pb2.RouteTarget, _Mapping]] = ...) -> None: ...

class SRPolicyNLRI(_message.Message):
    __slots__ = ("length", "distinguisher", "color", "endpoint")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DISTINGUISHER_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    length: int
    distinguisher: int
    color: int
    endpoint: bytes
    def __init__(self, length: _Optional[int] = ..., distinguisher: _Optional[int] = ..., color: _Optional[int] = ..., endpoint: _Optional[bytes] = ...) -> None: ...

class LabeledVPNIPAddressPrefix(_message.Message):
    __slots__ = ("labels", "rd", "prefix_len", "prefix")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RD_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[int]
    rd: _common_pb2.RouteDistinguisher
    prefix_len: int
    prefix: str
    def __init__(self, labels: _Optional[_Iterable[int]] = ..., rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., prefix_len: _Optional[int] = ..., prefix: _Optional[str] = ...) -> None: ...

class RouteTargetMembershipNLRI(_message.Message):
    __slots__ = ("asn", "rt")
    ASN_FIELD_NUMBER: _ClassVar[int]
    RT_FIELD_NUMBER: _ClassVar[int]
    asn: int
    rt: _extcom_pb2.RouteTarget
    def __init__(self, asn: _Optional[int] = ..., rt: _Optional[_Union[_extcom_pb2.RouteTarget, _Mapping]] = ...) -> None: ...

class FlowSpecIPPrefix(_message.Message):
    __slots__ = ("type", "prefix_len", "prefix", "offset")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    type: int
    prefix_len: int
    prefix: str
    offset: int
    def __init__(self, type: _Optional[int] = ..., prefix_len: _Optional[int] = ..., prefix: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class FlowSpecMAC(_message.Message):
    __slots__ = ("type", "address")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    type: int
    address: str
    def __init__(self, type: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class FlowSpecComponentItem(_message.Message):
    __slots__ = ("op", "value")
    OP_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    op: int
    value: int
    def __init__(self, op: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...

class FlowSpecComponent(_message.Message):
    __slots__ = ("type", "items")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    type: int
    items: _containers.RepeatedCompositeFieldContainer[FlowSpecComponentItem]
    def __init__(self, type: _Optional[int] = ..., items: _Optional[_Iterable[_Union[FlowSpecComponentItem, _Mapping]]] = ...) -> None: ...

class FlowSpecRule(_message.Message):
    __slots__ = ("ip_prefix", "mac", "component")
    IP_PREFIX_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    ip_prefix: FlowSpecIPPrefix
    mac: FlowSpecMAC
    component: FlowSpecComponent
    def __init__(self, ip_prefix: _Optional[_Union[FlowSpecIPPrefix, _Mapping]] = ..., mac: _Optional[_Union[FlowSpecMAC, _Mapping]] = ..., component: _Optional[_Union[FlowSpecComponent, _Mapping]] = ...) -> None: ...

class FlowSpecNLRI(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[FlowSpecRule]
    def __init__(self, rules: _Optional[_Iterable[_Union[FlowSpecRule, _Mapping]]] = ...) -> None: ...

class VPNFlowSpecNLRI(_message.Message):
    __slots__ = ("rd", "rules")
    RD_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    rules: _containers.RepeatedCompositeFieldContainer[FlowSpecRule]
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., rules: _Optional[_Iterable[_Union[FlowSpecRule, _Mapping]]] = ...) -> None: ...

class OpaqueNLRI(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class LsNodeDescriptor(_message.Message):
    __slots__ = ("asn", "bgp_ls_id", "ospf_area_id", "pseudonode", "igp_router_id", "bgp_router_id", "bgp_confederation_member")
    ASN_FIELD_NUMBER: _ClassVar[int]
    BGP_LS_ID_FIELD_NUMBER: _ClassVar[int]
    OSPF_AREA_ID_FIELD_NUMBER: _ClassVar[int]
    PSEUDONODE_FIELD_NUMBER: _ClassVar[int]
    IGP_ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    BGP_ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    BGP_CONFEDERATION_MEMBER_FIELD_NUMBER: _ClassVar[int]
    asn: int
    bgp_ls_id: int
    ospf_area_id: int
    pseudonode: bool
    igp_router_id: str
    bgp_router_id: str
    bgp_confederation_member: int
    def __init__(self, asn: _Optional[int] = ..., bgp_ls_id: _Optional[int] = ..., ospf_area_id: _Optional[int] = ..., pseudonode: _Optional[bool] = ..., igp_router_id: _Optional[str] = ..., bgp_router_id: _Optional[str] = ..., bgp_confederation_member: _Optional[int] = ...) -> None: ...

class LsLinkDescriptor(_message.Message):
    __slots__ = ("link_local_id", "link_remote_id", "interface_addr_ipv4", "neighbor_addr_ipv4", "interface_addr_ipv6", "neighbor_addr_ipv6")
    LINK_LOCAL_ID_FIELD_NUMBER: _ClassVar[int]
    LINK_REMOTE_ID_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_ADDR_IPV4_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOR_ADDR_IPV4_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_ADDR_IPV6_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOR_ADDR_IPV6_FIELD_NUMBER: _ClassVar[int]
    link_local_id: int
    link_remote_id: int
    interface_addr_ipv4: str
    neighbor_addr_ipv4: str
    interface_addr_ipv6: str
    neighbor_addr_ipv6: str
    def __init__(self, link_local_id: _Optional[int] = ..., link_remote_id: _Optional[int] = ..., interface_addr_ipv4: _Optional[str] = ..., neighbor_addr_ipv4: _Optional[str] = ..., interface_addr_ipv6: _Optional[str] = ..., neighbor_addr_ipv6: _Optional[str] = ...) -> None: ...

class LsPrefixDescriptor(_message.Message):
    __slots__ = ("ip_reachability", "ospf_route_type")
    IP_REACHABILITY_FIELD_NUMBER: _ClassVar[int]
    OSPF_ROUTE_TYPE_FIELD_NUMBER: _ClassVar[int]
    ip_reachability: _containers.RepeatedScalarFieldContainer[str]
    ospf_route_type: LsOspfRouteType
    def __init__(self, ip_reachability: _Optional[_Iterable[str]] = ..., ospf_route_type: _Optional[_Union[LsOspfRouteType, str]] = ...) -> None: ...

class LsNodeNLRI(_message.Message):
    __slots__ = ("local_node",)
    LOCAL_NODE_FIELD_NUMBER: _ClassVar[int]
    local_node: LsNodeDescriptor
    def __init__(self, local_node: _Optional[_Union[LsNodeDescriptor, _Mapping]] = ...) -> None: ...

class LsLinkNLRI(_message.Message):
    __slots__ = ("local_node", "remote_node", "link_descriptor")
    LOCAL_NODE_FIELD_NUMBER: _ClassVar[int]
    REMOTE_NODE_FIELD_NUMBER: _ClassVar[int]
    LINK_DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    local_node: LsNodeDescriptor
    remote_node: LsNodeDescriptor
    link_descriptor: LsLinkDescriptor
    def __init__(self, local_node: _Optional[_Union[LsNodeDescriptor, _Mapping]] = ..., remote_node: _Optional[_Union[LsNodeDescriptor, _Mapping]] = ..., link_descriptor: _Optional[_Union[LsLinkDescriptor, _Mapping]] = ...) -> None: ...

class LsPrefixV4NLRI(_message.Message):
    __slots__ = ("local_node", "prefix_descriptor")
    LOCAL_NODE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    local_node: LsNodeDescriptor
    prefix_descriptor: LsPrefixDescriptor
    def __init__(self, local_node: _Optional[_Union[LsNodeDescriptor, _Mapping]] = ..., prefix_descriptor: _Optional[_Union[LsPrefixDescriptor, _Mapping]] = ...) -> None: ...

class LsPrefixV6NLRI(_message.Message):
    __slots__ = ("local_node", "prefix_descriptor")
    LOCAL_NODE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    local_node: LsNodeDescriptor
    prefix_descriptor: LsPrefixDescriptor
    def __init__(self, local_node: _Optional[_Union[LsNodeDescriptor, _Mapping]] = ..., prefix_descriptor: _Optional[_Union[LsPrefixDescriptor, _Mapping]] = ...) -> None: ...

class LsSrv6SIDInformation(_message.Message):
    __slots__ = ("sids",)
    SIDS_FIELD_NUMBER: _ClassVar[int]
    sids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sids: _Optional[_Iterable[str]] = ...) -> None: ...

class LsMultiTopologyIdentifier(_message.Message):
    __slots__ = ("multi_topo_ids",)
    MULTI_TOPO_IDS_FIELD_NUMBER: _ClassVar[int]
    multi_topo_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, multi_topo_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class LsSrv6SIDNLRI(_message.Message):
    __slots__ = ("local_node", "srv6_sid_information", "multi_topo_id")
    LOCAL_NODE_FIELD_NUMBER: _ClassVar[int]
    SRV6_SID_INFORMATION_FIELD_NUMBER: _ClassVar[int]
    MULTI_TOPO_ID_FIELD_NUMBER: _ClassVar[int]
    local_node: LsNodeDescriptor
    srv6_sid_information: LsSrv6SIDInformation
    multi_topo_id: LsMultiTopologyIdentifier
    def __init__(self, local_node: _Optional[_Union[LsNodeDescriptor, _Mapping]] = ..., srv6_sid_information: _Optional[_Union[LsSrv6SIDInformation, _Mapping]] = ..., multi_topo_id: _Optional[_Union[LsMultiTopologyIdentifier, _Mapping]] = ...) -> None: ...

class LsAddrPrefix(_message.Message):
    __slots__ = ("type", "nlri", "length", "protocol_id", "identifier")
    class LsNLRI(_message.Message):
        __slots__ = ("node", "link", "prefix_v4", "prefix_v6", "srv6_sid")
        NODE_FIELD_NUMBER: _ClassVar[int]
        LINK_FIELD_NUMBER: _ClassVar[int]
        PREFIX_V4_FIELD_NUMBER: _ClassVar[int]
        PREFIX_V6_FIELD_NUMBER: _ClassVar[int]
        SRV6_SID_FIELD_NUMBER: _ClassVar[int]
        node: LsNodeNLRI
        link: LsLinkNLRI
        prefix_v4: LsPrefixV4NLRI
        prefix_v6: LsPrefixV6NLRI
        srv6_sid: LsSrv6SIDNLRI
        def __init__(self, node: _Optional[_Union[LsNodeNLRI, _Mapping]] = ..., link: _Optional[_Union[LsLinkNLRI, _Mapping]] = ..., prefix_v4: _Optional[_Union[LsPrefixV4NLRI, _Mapping]] = ..., prefix_v6: _Optional[_Union[LsPrefixV6NLRI, _Mapping]] = ..., srv6_sid: _Optional[_Union[LsSrv6SIDNLRI, _Mapping]] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NLRI_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    type: LsNLRIType
    nlri: LsAddrPrefix.LsNLRI
    length: int
    protocol_id: LsProtocolID
    identifier: int
    def __init__(self, type: _Optional[_Union[LsNLRIType, str]] = ..., nlri: _Optional[_Union[LsAddrPrefix.LsNLRI, _Mapping]] = ..., length: _Optional[int] = ..., protocol_id: _Optional[_Union[LsProtocolID, str]] = ..., identifier: _Optional[int] = ...) -> None: ...

class MUPInterworkSegmentDiscoveryRoute(_message.Message):
    __slots__ = ("rd", "prefix")
    RD_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    prefix: str
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., prefix: _Optional[str] = ...) -> None: ...

class MUPDirectSegmentDiscoveryRoute(_message.Message):
    __slots__ = ("rd", "address")
    RD_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    address: str
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., address: _Optional[str] = ...) -> None: ...

class MUPSessionParametersTLV(_message.Message):
    __slots__ = ("teid", "qfi")
    TEID_FIELD_NUMBER: _ClassVar[int]
    QFI_FIELD_NUMBER: _ClassVar[int]
    teid: int
    qfi: int
    def __init__(self, teid: _Optional[int] = ..., qfi: _Optional[int] = ...) -> None: ...

class MUPInterworkEndpointTLV(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class MUPSourceAddressTLV(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class MUPUnknownTLV(_message.Message):
    __slots__ = ("type", "value")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type: int
    value: bytes
    def __init__(self, type: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class MUPTLV(_message.Message):
    __slots__ = ("session_parameters", "interwork_endpoint", "source_address", "unknown")
    SESSION_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    INTERWORK_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    session_parameters: MUPSessionParametersTLV
    interwork_endpoint: MUPInterworkEndpointTLV
    source_address: MUPSourceAddressTLV
    unknown: MUPUnknownTLV
    def __init__(self, session_parameters: _Optional[_Union[MUPSessionParametersTLV, _Mapping]] = ..., interwork_endpoint: _Optional[_Union[MUPInterworkEndpointTLV, _Mapping]] = ..., source_address: _Optional[_Union[MUPSourceAddressTLV, _Mapping]] = ..., unknown: _Optional[_Union[MUPUnknownTLV, _Mapping]] = ...) -> None: ...

class MUPType1SessionTransformedRoute(_message.Message):
    __slots__ = ("rd", "prefix_length", "prefix", "teid", "qfi", "endpoint_address_length", "endpoint_address", "source_address_length", "source_address", "tlvs")
    RD_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    TEID_FIELD_NUMBER: _ClassVar[int]
    QFI_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_ADDRESS_LENGTH_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TLVS_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    prefix_length: int
    prefix: str
    teid: int
    qfi: int
    endpoint_address_length: int
    endpoint_address: str
    source_address_length: int
    source_address: str
    tlvs: _containers.RepeatedCompositeFieldContainer[MUPTLV]
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., prefix_length: _Optional[int] = ..., prefix: _Optional[str] = ..., teid: _Optional[int] = ..., qfi: _Optional[int] = ..., endpoint_address_length: _Optional[int] = ..., endpoint_address: _Optional[str] = ..., source_address_length: _Optional[int] = ..., source_address: _Optional[str] = ..., tlvs: _Optional[_Iterable[_Union[MUPTLV, _Mapping]]] = ...) -> None: ...

class MUPType2SessionTransformedRoute(_message.Message):
    __slots__ = ("rd", "endpoint_address_length", "endpoint_address", "teid", "tlvs")
    RD_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_ADDRESS_LENGTH_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TEID_FIELD_NUMBER: _ClassVar[int]
    TLVS_FIELD_NUMBER: _ClassVar[int]
    rd: _common_pb2.RouteDistinguisher
    endpoint_address_length: int
    endpoint_address: str
    teid: int
    tlvs: _containers.RepeatedCompositeFieldContainer[MUPTLV]
    def __init__(self, rd: _Optional[_Union[_common_pb2.RouteDistinguisher, _Mapping]] = ..., endpoint_address_length: _Optional[int] = ..., endpoint_address: _Optional[str] = ..., teid: _Optional[int] = ..., tlvs: _Optional[_Iterable[_Union[MUPTLV, _Mapping]]] = ...) -> None: ...
