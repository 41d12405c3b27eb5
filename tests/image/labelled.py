"""One of TF's ordinary vRouters, as far as a packet on the underlay can tell: MPLS over UDP (RFC 7510), one guest."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from tests.image.frames import answer_of
from tests.kernel.site import inside

PORT = 6635
_LAST, _TTL = 1 << 8, 64


class LabelledHost:
    """Answers pings to `guest` that come to `vtep` with `label`; with `label_back`, to where they came from."""

    def __init__(self, namespace: str, *, vtep: IPv4Address, guest: IPv4Address, label: int, label_back: int) -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((str(vtep), PORT))
        self._vtep = vtep
        self._guest = guest
        self._expected, self._back = _label_entry(label), _label_entry(label_back)
        self._thread = threading.Thread(target=self._serve, name="labelled", daemon=True)

    @contextmanager
    def served(self) -> Iterator[None]:
        """Answer while inside."""
        self._thread.start()
        try:
            yield
        finally:
            self._socket.sendto(b"", (str(self._vtep), PORT))
            self._thread.join()
            self._socket.close()

    def _serve(self) -> None:
        while True:
            data, (sender, _) = self._socket.recvfrom(65536)
            if not data:
                return
            if data[:3] != self._expected[:3]:
                continue
            answer = answer_of(data[4:], at=self._guest)
            if answer is not None:
                self._socket.sendto(self._back + answer, (sender, PORT))


def _label_entry(label: int) -> bytes:
    """The only entry of a label stack (RFC 3032, 2.1)."""
    return struct.pack("!I", label << 12 | _LAST | _TTL)
