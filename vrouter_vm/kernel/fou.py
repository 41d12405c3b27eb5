"""The kernel's taking in of MPLS over UDP: a port on which UDP is stripped off and what is inside goes to MPLS.

Found by `mpls`, used by `adapter`; "foo over UDP" in the kernel (include/uapi/linux/fou.h), over generic netlink.
Sending needs nothing here: it is a property of each tunnel device.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address
from typing import Final

from tf_reconcile.errors import Transient
from vrouter_vm import names
from vrouter_vm.kernel import netlink

_NETLINK_GENERIC: Final = 16
_CONTROLLER: Final = 16
_GET_FAMILY: Final = 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_ADD, _DELETE, _GET = 1, 2, 3
_PORT, _ADDRESS_FAMILY, _PROTOCOL, _KIND, _LOCAL = 1, 2, 3, 4, 6
_DIRECT: Final = 1  # FOU_ENCAP_DIRECT: no header of its own between UDP and what is inside
_GENERIC: Final = struct.Struct("=BBxx")
_VERSION: Final = 1
_U16: Final = struct.Struct("=H")
_BIG_U16: Final = struct.Struct("!H")
_BUFFER_BYTES: Final = 1 << 16


class FouPort:
    """The UDP port for MPLS on one address of this host. Use it from one thread."""

    def __init__(self, address: IPv4Address, port: int) -> None:
        """Raises OSError when the kernel has no fou."""
        self._attributes = {
            _PORT: _BIG_U16.pack(port),
            _ADDRESS_FAMILY: bytes([socket.AF_INET]),
            _PROTOCOL: bytes([names.MPLS_IN_IP]),
            _KIND: bytes([_DIRECT]),
            _LOCAL: address.packed,
        }
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
        self._socket.bind((0, 0))
        self._number = 0
        name = netlink.attribute(_FAMILY_NAME, b"fou\0")
        try:
            (answer,) = self._request(_CONTROLLER, _GET_FAMILY, name, flags=netlink.ACKNOWLEDGE)
        except OSError:
            self._socket.close()
            raise
        self._family = _U16.unpack(netlink.attributes(answer, _GENERIC.size)[_FAMILY_ID])[0]

    @classmethod
    def find(cls, address: IPv4Address, port: int) -> FouPort | None:
        """Return the port, None when the kernel has no fou."""
        try:
            return cls(address, port)
        except OSError:
            return None

    def close(self) -> None:
        """Close our end; the port stays."""
        self._socket.close()

    def is_open(self) -> bool:
        """Return whether MPLS is taken in; raises `Transient` when that cannot be told."""
        try:
            answers = self._request(self._family, _GET, b"", flags=netlink.DUMP)
        except OSError as error:
            raise Transient("kernel", "dump of UDP ports", reason=error.strerror or str(error)) from error
        wanted = self._attributes.items()
        return any(wanted <= netlink.attributes(answer, _GENERIC.size).items() for answer in answers)

    def open(self) -> None:
        """Take in MPLS from now on; raises OSError."""
        self._change(_ADD)

    def shut(self) -> None:
        """Take in MPLS no more; raises OSError."""
        self._change(_DELETE)

    def _change(self, command: int) -> None:
        body = b"".join(netlink.attribute(number, value) for number, value in self._attributes.items())
        self._request(self._family, command, body, flags=netlink.ACKNOWLEDGE)

    def _request(self, family: int, command: int, body: bytes, *, flags: int) -> list[bytes]:
        """Return the bodies of all answers; raises OSError with the kernel's code."""
        self._number += 1
        message = _GENERIC.pack(command, _VERSION) + body
        self._socket.send(netlink.pack_one(family, netlink.REQUEST | flags, message, sequence=self._number))
        answers: list[bytes] = []
        while True:
            for kind, _, sequence, answer in netlink.unpack(self._socket.recv(_BUFFER_BYTES)):
                if sequence != self._number:
                    continue
                if kind not in {netlink.DONE, netlink.ERROR}:
                    answers.append(answer)
                elif code := netlink.parse_error(answer):
                    raise OSError(code, os.strerror(code))
                else:
                    return answers
