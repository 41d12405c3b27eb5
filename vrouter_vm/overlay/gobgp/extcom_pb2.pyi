from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TwoOctetAsSpecificExtended(_message.Message):
    __slots__ = ("is_transitive", "sub_type", "asn", "local_admin")
    IS_TRANSITIVE_FIELD_NUMBER: _ClassVar[int]
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    ASN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    is_transitive: bool
    sub_type: int
    asn: int
    local_admin: int
    def __init__(self, is_transitive: _Optional[bool] = ..., sub_type: _Optional[int] = ..., asn: _Optional[int] = ..., local_admin: _Optional[int] = ...) -> None: ...

class IPv4AddressSpecificExtended(_message.Message):
    __slots__ = ("is_transitive", "sub_type", "address", "local_admin")
    IS_TRANSITIVE_FIELD_NUMBER: _ClassVar[int]
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    is_transitive: bool
    sub_type: int
    address: str
    local_admin: int
    def __init__(self, is_transitive: _Optional[bool] = ..., sub_type: _Optional[int] = ..., address: _Optional[str] = ..., local_admin: _Optional[int] = ...) -> None: ...

class FourOctetAsSpecificExtended(_message.Message):
    __slots__ = ("is_transitive", "sub_type", "asn", "local_admin")
    IS_TRANSITIVE_FIELD_NUMBER: _ClassVar[int]
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    ASN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    is_transitive: bool
    sub_type: int
    asn: int
    local_admin: int
    def __init__(self, is_transitive: _Optional[bool] = ..., sub_type: _Optional[int] = ..., asn: _Optional[int] = ..., local_admin: _Optional[int] = ...) -> None: ...

class LinkBandwidthExtended(_message.Message):
    __slots__ = ("asn", "bandwidth")
    ASN_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    asn: int
    bandwidth: float
    def __init__(self, asn: _Optional[int] = ..., bandwidth: _Optional[float] = ...) -> None: ...

class ValidationExtended(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: int
    def __init__(self, state: _Optional[int] = ...) -> None: ...

class ColorExtended(_message.Message):
    __slots__ = ("color",)
    COLOR_FIELD_NUMBER: _ClassVar[int]
    color: int
    def __init__(self, color: _Optional[int] = ...) -> None: ...

class EncapExtended(_message.Message):
    __slots__ = ("tunnel_type",)
    TUNNEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    tunnel_type: int
    def __init__(self, tunnel_type: _Optional[int] = ...) -> None: ...

class DefaultGatewayExtended(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpaqueExtended(_message.Message):
    __slots__ = ("is_transitive", "value")
    IS_TRANSITIVE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    is_transitive: bool
    value: bytes
    def __init__(self, is_transitive: _Optional[bool] = ..., value: _Optional[bytes] = ...) -> None: ...

class ESILabelExtended(_message.Message):
    __slots__ = ("is_single_active", "label")
    IS_SINGLE_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    is_single_active: bool
    label: int
    def __init__(self, is_single_active: _Optional[bool] = ..., label: _Optional[int] = ...) -> None: ...

class ESImportRouteTarget(_message.Message):
    __slots__ = ("es_import",)
    ES_IMPORT_FIELD_NUMBER: _ClassVar[int]
    es_import: str
    def __init__(self, es_import: _Optional[str] = ...) -> None: ...

class MacMobilityExtended(_message.Message):
    __slots__ = ("is_sticky", "sequence_num")
    IS_STICKY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUM_FIELD_NUMBER: _ClassVar[int]
    is_sticky: bool
    sequence_num: int
    def __init__(self, is_sticky: _Optional[bool] = ..., sequence_num: _Optional[int] = ...) -> None: ...

class RouterMacExtended(_message.Message):
    __slots__ = ("mac",)
    MAC_FIELD_NUMBER: _ClassVar[int]
    mac: str
    def __init__(self, mac: _Optional[str] = ...) -> None: ...

class TrafficRateExtended(_message.Message):
    __slots__ = ("asn", "rate")
    ASN_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    asn: int
    rate: float
    def __init__(self, asn: _Optional[int] = ..., rate: _Optional[float] = ...) -> None: ...

class TrafficActionExtended(_message.Message):
    __slots__ = ("terminal", "sample")
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    terminal: bool
    sample: bool
    def __init__(self, terminal: _Optional[bool] = ..., sample: _Optional[bool] = ...) -> None: ...

class RedirectTwoOctetAsSpecificExtended(_message.Message):
    __slots__ = ("asn", "local_admin")
    ASN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    asn: int
    local_admin: int
    def __init__(self, asn: _Optional[int] = ..., local_admin: _Optional[int] = ...) -> None: ...

class RedirectIPv4AddressSpecificExtended(_message.Message):
    __slots__ = ("address", "local_admin")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    address: str
    local_admin: int
    def __init__(self, address: _Optional[str] = ..., local_admin: _Optional[int] = ...) -> None: ...

class RedirectFourOctetAsSpecificExtended(_message.Message):
    __slots__ = ("asn", "local_admin")
    ASN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    asn: int
    local_admin: int
    def __init__(self, asn: _Optional[int] = ..., local_admin: _Optional[int] = ...) -> None: ...

class TrafficRemarkExtended(_message.Message):
    __slots__ = ("dscp",)
    DSCP_FIELD_NUMBER: _ClassVar[int]
    dscp: int
    def __init__(self, dscp: _Optional[int] = ...) -> None: ...

class MUPTwoOctetAsSpecificExtended(_message.Message):
    __slots__ = ("sub_type", "asn", "local_admin")
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    ASN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    sub_type: int
    asn: int
    local_admin: int
    def __init__(self, sub_type: _Optional[int] = ..., asn: _Optional[int] = ..., local_admin: _Optional[int] = ...) -> None: ...

class MUPIPv4AddressSpecificExtended(_message.Message):
    __slots__ = ("sub_type", "address", "local_admin")
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    sub_type: int
    address: str
    local_admin: int
    def __init__(self, sub_type: _Optional[int] = ..., address: _Optional[str] = ..., local_admin: _Optional[int] = ...) -> None: ...

class MUPFourOctetAsSpecificExtended(_message.Message):
    __slots__ = ("sub_type", "asn", "local_admin")
    SUB_TYPE_FIELD_NUMBER: _ClassVar[int]
    ASN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADMIN_FIELD_NUMBER: _ClassVar[int]
    sub_type: int
    asn: int
    local_admin: int
    def __init__(self, sub_type: _Optional[int] = ..., asn: _Optional[int] = ..., local_admin: _Optional[int] = ...) -> None: ...

class VPLSExtended(_message.Message):
    __slots__ = ("control_flags", "mtu")
    CONTROL_FLAGS_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    control_flags: int
    mtu: int
    def __init__(self, control_flags: _Optional[int] = ..., mtu: _Optional[int] = ...) -> None: ...

class ETreeExtended(_message.Message):
    __slots__ = ("is_leaf", "label")
    IS_LEAF_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    is_leaf: bool
    label: int
    def __init__(self, is_leaf: _Optional[bool] = ..., label: _Optional[int] = ...) -> None: ...

class MulticastFlagsExtended(_message.Message):
    __slots__ = ("is_igmp_proxy", "is_mld_proxy")
    IS_IGMP_PROXY_FIELD_NUMBER: _ClassVar[int]
    IS_MLD_PROXY_FIELD_NUMBER: _ClassVar[int]
    is_igmp_proxy: bool
    is_mld_proxy: bool
    def __init__(self, is_igmp_proxy: _Optional[bool] = ..., is_mld_proxy: _Optional[bool] = ...) -> None: ...

class UnknownExtended(_message.Message):
    __slots__ = ("type", "value")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type: int
    value: bytes
    def __init__(self, type: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class ExtendedCommunity(_message.Message):
    __slots__ = ("unknown", "two_octet_as_specific", "ipv4_address_specific", "four_octet_as_specific", "link_bandwidth", "validation", "color", "encap", "default_gateway", "opaque", "esi_label", "es_import", "mac_mobility", "router_mac", "traffic_rate", "traffic_action", "redirect_two_octet_as_specific", "redirect_ipv4_address_specific", "redirect_four_octet_as_specific", "traffic_remark", "vpls", "etree", "multicast_flags", "mup_two_octet_as_specific", "mup_ipv4_address_specific", "mup_four_octet_as_specific")
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    TWO_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    IPV4_ADDRESS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    FOUR_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    LINK_BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    ENCAP_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_GATEWAY_FIELD_NUMBER: _ClassVar[int]
    OPAQUE_FIELD_NUMBER: _ClassVar[int]
    ESI_LABEL_FIELD_NUMBER: _ClassVar[int]
    ES_IMPORT_FIELD_NUMBER: _ClassVar[int]
    MAC_MOBILITY_FIELD_NUMBER: _ClassVar[int]
    ROUTER_MAC_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_RATE_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_ACTION_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_TWO_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_IPV4_ADDRESS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_FOUR_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_REMARK_FIELD_NUMBER: _ClassVar[int]
    VPLS_FIELD_NUMBER: _ClassVar[int]
    ETREE_FIELD_NUMBER: _ClassVar[int]
    MULTICAST_FLAGS_FIELD_NUMBER: _ClassVar[int]
    MUP_TWO_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    MUP_IPV4_ADDRESS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    MUP_FOUR_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    unknown: UnknownExtended
    two_octet_as_specific: TwoOctetAsSpecificExtended
    ipv4_address_specific: IPv4AddressSpecificExtended
    four_octet_as_specific: FourOctetAsSpecificExtended
    link_bandwidth: LinkBandwidthExtended
    validation: ValidationExtended
    color: ColorExtended
    encap: EncapExtended
    default_gateway: DefaultGatewayExtended
    opaque: OpaqueExtended
    esi_label: ESILabelExtended
    es_import: ESImportRouteTarget
    mac_mobility: MacMobilityExtended
    router_mac: RouterMacExtended
    traffic_rate: TrafficRateExtended
    traffic_action: TrafficActionExtended
    redirect_two_octet_as_specific: RedirectTwoOctetAsSpecificExtended
    redirect_ipv4_address_specific: RedirectIPv4AddressSpecificExtended
    redirect_four_octet_as_specific: RedirectFourOctetAsSpecificExtended
    traffic_remark: TrafficRemarkExtended
    vpls: VPLSExtended
    etree: ETreeExtended
    multicast_flags: MulticastFlagsExtended
    mup_two_octet_as_specific: MUPTwoOctetAsSpecificExtended
    mup_ipv4_address_specific: MUPIPv4AddressSpecificExtended
    mup_four_octet_as_specific: MUPFourOctetAsSpecificExtended
    def __init__(self, unknown: _Optional[_Union[UnknownExtended, _Mapping]] = ..., two_octet_as_specific: _Optional[_Union[TwoOctetAsSpecificExtended, _Mapping]] = ..., ipv4_address_specific: _Optional[_Union[IPv4AddressSpecificExtended, _Mapping]] = ..., four_octet_as_specific: _Optional[_Union[FourOctetAsSpecificExtended, _Mapping]] = ..., link_bandwidth: _Optional[_Union[LinkBandwidthExtended, _Mapping]] = ..., validation: _Optional[_Union[ValidationExtended, _Mapping]] = ..., color: _Optional[_Union[ColorExtended, _Mapping]] = ..., encap: _Optional[_Union[EncapExtended, _Mapping]] = ..., default_gateway: _Optional[_Union[DefaultGatewayExtended, _Mapping]] = ..., opaque: _Optional[_Union[OpaqueExtended, _Mapping]] = ..., esi_label: _Optional[_Union[ESILabelExtended, _Mapping]] = ..., es_import: _Optional[_Union[ESImportRouteTarget, _Mapping]] = ..., mac_mobility: _Optional[_Union[MacMobilityExtended, _Mapping]] = ..., router_mac: _Optional[_Union[RouterMacExtended, _Mapping]] = ..., traffic_rate: _Optional[_Union[TrafficRateExtended, _Mapping]] = ..., traffic_action: _Optional[_Union[TrafficActionExtended, _Mapping]] = ..., redirect_two_octet_as_specific: _Optional[_Union[RedirectTwoOctetAsSpecificExtended, _Mapping]] = ..., redirect_ipv4_address_specific: _Optional[_Union[RedirectIPv4AddressSpecificExtended, _Mapping]] = ..., redirect_four_octet_as_specific: _Optional[_Union[RedirectFourOctetAsSpecificExtended, _Mapping]] = ..., traffic_remark: _Optional[_Union[TrafficRemarkExtended, _Mapping]] = ..., vpls: _Optional[_Union[VPLSExtended, _Mapping]] = ..., etree: _Optional[_Union[ETreeExtended, _Mapping]] = ..., multicast_flags: _Optional[_Union[MulticastFlagsExtended, _Mapping]] = ..., mup_two_octet_as_specific: _Optional[_Union[MUPTwoOctetAsSpecificExtended, _Mapping]] = ..., mup_ipv4_address_specific: _Optional[_Union[MUPIPv4AddressSpecificExtended, _Mapping]] = ..., mup_four_octet_as_specific: _Optional[_Union[MUPFourOctetAsSpecificExtended, _Mapping]] = ...) -> None: ...

class RouteTarget(_message.Message):
    __slots__ = ("two_octet_as_specific", "ipv4_address_specific", "four_octet_as_specific")
    TWO_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    IPV4_ADDRESS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    FOUR_OCTET_AS_SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    two_octet_as_specific: TwoOctetAsSpecificExtended
    ipv4_address_specific: IPv4AddressSpecificExtended
    four_octet_as_specific: FourOctetAsSpecificExtended
    def __init__(self, two_octet_as_specific: _Optional[_Union[TwoOctetAsSpecificExtended, _Mapping]] = ..., ipv4_address_specific: _Optional[_Union[IPv4AddressSpecificExtended, _Mapping]] = ..., four_octet_as_specific: _Optional[_Union[FourOctetAsSpecificExtended, _Mapping]] = ...) -> None: ...
