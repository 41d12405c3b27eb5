"""A trunk with guests behind it, in network namespaces of this machine: no VLAN device, VRF, bridge or agent is needed.

The switch is a thread that copies frames: with a tag from a guest to the trunk, without it from the trunk to the guest.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

ROUTER_MAC = "00:50:56:00:00:01"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_SOL_PACKET, _AUXDATA, _IGNORE_OUTGOING, _VLAN_VALID = 263, 8, 23, 0x10
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


@dataclass(frozen=True, kw_only=True)
class GuestLink:
    """A guest's namespace with `eth0`."""

    namespace: str
    vlan: int
    mac: str

    def run(self, *command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )


@contextmanager
def trunk_with_guests(vlans: Sequence[int], *, trunk: str = "eth1") -> Iterator[list[GuestLink]]:
    """Move this thread into a namespace of its own, where `trunk` is, with a guest on each VLAN."""
    prefix = f"t{uuid.uuid4().hex[:6]}"
    switch = f"{prefix}-sw"
    links = [
        GuestLink(namespace=f"{prefix}-{vlan}", vlan=vlan, mac=f"00:50:56:aa:00:{index + 1:02x}")
        for index, vlan in enumerate(vlans)
    ]
    with ExitStack() as stack:
        stack.callback(_delete, [switch, *(link.namespace for link in links)])
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, home)
        stack.callback(_LIBC.setns, home, _CLONE_NEWNET)
        if _LIBC.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        _batch(
            f"netns add {switch}",
            *(f"netns add {link.namespace}" for link in links),
            "link set lo up",
            f"link add {trunk} address {ROUTER_MAC} type veth peer name trunk netns {switch}",
            *(
                f"link add p{link.vlan} netns {switch} type veth peer name eth0 netns {link.namespace}"
                for link in links
            ),
            f"link set {trunk} up",
        )
        ports = ["trunk", *(f"p{link.vlan}" for link in links)]
        _batch(*(f"link set {port} up" for port in ports), namespace=switch)
        with _inside(switch):
            copier = stack.enter_context(_Copier({link.vlan: f"p{link.vlan}" for link in links}))
        copier.start()
        for link in links:
            _batch("link set lo up", f"link set eth0 address {link.mac} up", namespace=link.namespace)
            with _inside(link.namespace):
                _checksum_in_software("eth0")
        yield links


class _Copier(threading.Thread):
    """The switch."""

    def __init__(self, ports: Mapping[int, str]) -> None:
        super().__init__(daemon=True)
        self._trunk = _packet_socket("trunk")
        self._ports = {vlan: _packet_socket(name) for vlan, name in ports.items()}
        self._ended = os.eventfd(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.eventfd_write(self._ended, 1)
        self.join()
        for port in (self._trunk, *self._ports.values()):
            port.close()

    def run(self) -> None:
        while True:
            watched = [self._ended, self._trunk.fileno(), *(port.fileno() for port in self._ports.values())]
            ready, _, _ = select.select(watched, [], [])
            if self._ended in ready:
                return
            for vlan, port in self._ports.items():
                if port.fileno() in ready:
                    frame = port.recv(2048)
                    with suppress(OSError):  # lost, while the other end is down
                        self._trunk.send(frame[:12] + struct.pack("!HH", 0x8100, vlan) + frame[12:])
            if self._trunk.fileno() in ready:
                frame, ancillary, _, _ = self._trunk.recvmsg(2048, 256)
                status, *_, tag, _ = struct.unpack("=IIIHHHH", ancillary[0][2][:20])
                if status & _VLAN_VALID and tag & 0xFFF in self._ports:
                    self._ports[tag & 0xFFF].send(frame)


def _packet_socket(name: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    opened.bind((name, 3))
    opened.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    opened.setsockopt(_SOL_PACKET, _AUXDATA, 1)
    return opened


def _checksum_in_software(name: str) -> None:
    """Have checksums computed by the sender: a copied frame has lost the mark that they are not."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("@16sP", name.encode(), ctypes.addressof(value)).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)


@contextmanager
def _inside(name: str) -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        _LIBC.setns(there, _CLONE_NEWNET)
        yield
    finally:
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(there)
        os.close(home)


def _delete(namespaces: Sequence[str]) -> None:
    for namespace in namespaces:
        subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def _batch(*lines: str, namespace: str | None = None) -> None:
    command, given = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"], "\n".join(lines) + "\n"
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{given}")
