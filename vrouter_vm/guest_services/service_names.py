"""Pure: TF's link-local services and a question → the answer to who asks for one by name, or for an address of one.

Called by `service` before anybody else is asked, whatever the DNS method of the ipam, as TF's agent does
(DnsHandler::ResolveLinkLocalRequest).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from vrouter_vm.guest_services.zones import ANY, Known, Outcome, Question, address_of
from vrouter_vm.model import IpAddress, LinkLocalService
from vrouter_vm.tf.virtual_dns import DnsRecord, RecordType

TTL_S: Final = 120
"""TF's DEFAULT_DNS_TTL."""
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_TYPE_AND_CLASS_BYTES: Final = 4


class ServiceNames:
    """The names. A service whose name cannot be asked for has none."""

    def __init__(self, services: Iterable[LinkLocalService]) -> None:
        self._addresses: dict[str, list[IpAddress]] = {}
        self._names: dict[IpAddress, list[str]] = {}
        named = {(service.name.lower(), service.address) for service in services}
        for name, address in sorted(named, key=lambda each: (each[0], int(each[1]))):
            if _NAME.fullmatch(name):
                self._addresses.setdefault(name, []).append(address)
                self._names.setdefault(address, []).append(name)
        known = [*self._addresses, *(address.reverse_pointer for address in self._names)]
        self._asked_as = frozenset(map(_wire_name, known))

    def knows(self, question: bytes) -> bool:
        """True when the question section of a message (RFC 1035, 4.1.2) names a service or its address."""
        return question[:-_TYPE_AND_CLASS_BYTES].lower() in self._asked_as

    def answer(self, question: Question, *, domain: str = "") -> Known | None:
        """Return what is answered, None: no service has that name or address. A name may be one in `domain`."""
        addresses = self._addresses.get(question.name)
        if addresses is None and domain:
            addresses = self._addresses.get(question.name.removesuffix(f".{domain}"))
        if addresses is not None:
            found = [(RecordType.A if each.version == 4 else RecordType.AAAA, str(each)) for each in addresses]  # noqa: PLR2004
        else:
            address = address_of(question.name)
            names = None if address is None else self._names.get(address)
            if names is None:
                return None
            found = [(RecordType.PTR, name) for name in names]
        records = (
            DnsRecord(owner=question.name, type=of_type, ttl_s=TTL_S, data=data)
            for of_type, data in found
            if question.type in {of_type, ANY}
        )
        return Known(outcome=Outcome.FOUND, records=tuple(records))


def _wire_name(name: str) -> bytes:
    """Return a name as it is in messages (RFC 1035, 3.1)."""
    labels = [label.encode() for label in name.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
