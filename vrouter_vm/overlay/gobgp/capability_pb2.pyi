from vrouter_vm.overlay.gobgp import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Capability(_message.Message):
    __slots__ = ("unknown", "multi_protocol", "route_refresh", "carrying_label_info", "extended_nexthop", "graceful_restart", "four_octet_asn", "add_path", "enhanced_route_refresh", "long_lived_graceful_restart", "route_refresh_cisco", "fqdn", "software_version", "extended_message")
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    MULTI_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REFRESH_FIELD_NUMBER: _ClassVar[int]
    CARRYING_LABEL_INFO_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_NEXTHOP_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_RESTART_FIELD_NUMBER: _ClassVar[int]
    FOUR_OCTET_ASN_FIELD_NUMBER: _ClassVar[int]
    ADD_PATH_FIELD_NUMBER: _ClassVar[int]
    ENHANCED_ROUTE_REFRESH_FIELD_NUMBER: _ClassVar[int]
    LONG_LIVED_GRACEFUL_RESTART_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REFRESH_CISCO_FIELD_NUMBER: _ClassVar[int]
    FQDN_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    unknown: UnknownCapability
    multi_protocol: MultiProtocolCapability
    route_refresh: RouteRefreshCapability
    carrying_label_info: CarryingLabelInfoCapability
    extended_nexthop: ExtendedNexthopCapability
    graceful_restart: GracefulRestartCapability
    four_octet_asn: FourOctetASNCapability
    add_path: AddPathCapability
    enhanced_route_refresh: EnhancedRouteRefreshCapability
    long_lived_graceful_restart: LongLivedGracefulRestartCapability
    route_refresh_cisco: RouteRefreshCiscoCapability
    fqdn: FqdnCapability
    software_version: SoftwareVersionCapability
    extended_message: ExtendedMessageCapability
    def __init__(self, unknown: _Optional[_Union[UnknownCapability, _Mapping]] = ..., multi_protocol: _Optional[_Union[MultiProtocolCapability, _Mapping]] = ..., route_refresh: _Optional[_Union[RouteRefreshCapability, _Mapping]] = ..., carrying_label_info: _Optional[_Union[CarryingLabelInfoCapability, _Mapping]] = ..., extended_nexthop: _Optional[_Union[ExtendedNexthopCapability, _Mapping]] = ..., graceful_restart: _Optional[_Union[GracefulRestartCapability, _Mapping]] = ..., four_octet_asn: _Optional[_Union[FourOctetASNCapability, _Mapping]] = ..., add_path: _Optional[_Union[AddPathCapability, _Mapping]] = ..., enhanced_route_refresh: _Optional[_Union[EnhancedRouteRefreshCapability, _Mapping]] = ..., long_lived_graceful_restart: _Optional[_Union[LongLivedGracefulRestartCapability, _Mapping]] = ..., route_refresh_cisco: _Optional[_Union[RouteRefreshCiscoCapability, _Mapping]] = ..., fqdn: _Optional[_Union[FqdnCapability, _Mapping]] = ..., software_version: _Optional[_Union[SoftwareVersionCapability, _Mapping]] = ..., extended_message: _Optional[_Union[ExtendedMessageCapability, _Mapping]] = ...) -> None: ...

class MultiProtocolCapability(_message.Message):
    __slots__ = ("family",)
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    family: _common_pb2.Family
    def __init__(self, family: _Optional[_Union[_common_pb2.Family, _Mapping]] = ...) -> None: ...

class RouteRefreshCapability(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExtendedMessageCapability(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CarryingLabelInfoCapability(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExtendedNexthopCapabilityTuple(_message.Message):
    __slots__ = ("nlri_family", "nexthop_family")
    NLRI_FAMILY_FIELD_NUMBER: _ClassVar[int]
    NEXTHOP_FAMILY_FIELD_NUMBER: _ClassVar[int]
    nlri_family: _common_pb2.Family
    nexthop_family: _common_pb2.Family
    def __init__(self, nlri_family: _Optional[_Union[_common_pb2.Family, _Mapping]] = ..., nexthop_family: _Optional[_Union[_common_pb2.Family, _Mapping]] = ...) -> None: ...

class ExtendedNexthopCapability(_message.Message):
    __slots__ = ("tuples",)
    TUPLES_FIELD_NUMBER: _ClassVar[int]
    tuples: _containers.RepeatedCompositeFieldContainer[ExtendedNexthopCapabilityTuple]
    def __init__(self, tuples: _Optional[_Iterable[_Union[ExtendedNexthopCapabilityTuple, _Mapping]]] = ...) -> None: ...

class GracefulRestartCapabilityTuple(_message.Message):
    __slots__ = ("family", "flags")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    family: _common_pb2.Family
    flags: int
    def __init__(self, family: _Optional[_Union[_common_pb2.Family, _Mapping]] = ..., flags: _Optional[int] = ...) -> None: ...

class GracefulRestartCapability(_message.Message):
    __slots__ = ("flags", "time", "tuples")
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TUPLES_FIELD_NUMBER: _ClassVar[int]
    flags: int
    time: int
    tuples: _containers.RepeatedCompositeFieldContainer[GracefulRestartCapabilityTuple]
    def __init__(self, flags: _Optional[int] = ..., time: _Optional[int] = ..., tuples: _Optional[_Iterable[_Union[GracefulRestartCapabilityTuple, _Mapping]]] = ...) -> None: ...

class FourOctetASNCapability(_message.Message):
    __slots__ = ("asn",)
    ASN_FIELD_NUMBER: _ClassVar[int]
    asn: int
    def __init__(self, asn: _Optional[int] = ...) -> None: ...

class AddPathCapabilityTuple(_message.Message):
    __slots__ = ("family", "mode")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[AddPathCapabilityTuple.Mode]
        MODE_RECEIVE: _ClassVar[AddPathCapabilityTuple.Mode]
        MODE_SEND: _ClassVar[AddPathCapabilityTuple.Mode]
        MODE_BOTH: _ClassVar[AddPathCapabilityTuple.Mode]
    MODE_UNSPECIFIED: AddPathCapabilityTuple.Mode
    MODE_RECEIVE: AddPathCapabilityTuple.Mode
    MODE_SEND: AddPathCapabilityTuple.Mode
    MODE_BOTH: AddPathCapabilityTuple.Mode
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    family: _common_pb2.Family
    mode: AddPathCapabilityTuple.Mode
    def __init__(self, family: _Optional[_Union[_common_pb2.Family, _Mapping]] = ..., mode: _Optional[_Union[AddPathCapabilityTuple.Mode, str]] = ...) -> None: ...

class AddPathCapability(_message.Message):
    __slots__ = ("tuples",)
    TUPLES_FIELD_NUMBER: _ClassVar[int]
    tuples: _containers.RepeatedCompositeFieldContainer[AddPathCapabilityTuple]
    def __init__(self, tuples: _Optional[_Iterable[_Union[AddPathCapabilityTuple, _Mapping]]] = ...) -> None: ...

class EnhancedRouteRefreshCapability(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LongLivedGracefulRestartCapabilityTuple(_message.Message):
    __slots__ = ("family", "flags", "time")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    family: _common_pb2.Family
    flags: int
    time: int
    def __init__(self, family: _Optional[_Union[_common_pb2.Family, _Mapping]] = ..., flags: _Optional[int] = ..., time: _Optional[int] = ...) -> None: ...

class LongLivedGracefulRestartCapability(_message.Message):
    __slots__ = ("tuples",)
    TUPLES_FIELD_NUMBER: _ClassVar[int]
    tuples: _containers.RepeatedCompositeFieldContainer[LongLivedGracefulRestartCapabilityTuple]
    def __init__(self, tuples: _Optional[_Iterable[_Union[LongLivedGracefulRestartCapabilityTuple, _Mapping]]] = ...) -> None: ...

class RouteRefreshCiscoCapability(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FqdnCapability(_message.Message):
    __slots__ = ("host_name", "domain_name")
    HOST_NAME_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_NAME_FIELD_NUMBER: _ClassVar[int]
    host_name: str
    domain_name: str
    def __init__(self, host_name: _Optional[str] = ..., domain_name: _Optional[str] = ...) -> None: ...

class SoftwareVersionCapability(_message.Message):
    __slots__ = ("software_version",)
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    software_version: str
    def __init__(self, software_version: _Optional[str] = ...) -> None: ...

class UnknownCapability(_message.Message):
    __slots__ = ("code", "value")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    code: int
    value: bytes
    def __init__(self, code: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
