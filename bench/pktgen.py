"""Packets by the kernel's own generator (pktgen): UDP over IPv4, as fast as one CPU makes them.

Called by `forward`. A program that sends costs more than a kernel that forwards; in an emulated machine many times
more. The files below /proc/net/pktgen are those of Documentation/networking/pktgen.rst in the kernel's sources.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from bench.vrouter import inside
from vrouter_vm.model import MacAddress

CPU: Final = 0
"""The CPU that makes the packets."""

_FILES: Final = Path("/proc/thread-self/net/pktgen")
_THREAD: Final = f"kpktgend_{CPU}"
_PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.05
_PACKET_BYTES: Final = 64
_DELAY_NS: Final = 500
"""Two million packets a second: more than one CPU makes."""
_STARTED_S: Final = 0.3
"""pktgen begins within 125 ms after it was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Packets that leave by `device` one after the other. Ports are the first and the one after the last; with several
    of them each packet has the next one. `weight`: how many for each of the other streams' of weight 1.
    """

    device: str
    src_mac: MacAddress
    dst_mac: MacAddress
    src: IPv4Address
    dst: IPv4Address
    src_ports: tuple[int, int]
    dst_ports: tuple[int, int]
    weight: int = 1

    def commands(self, *, count: int, delay_ns: int) -> list[str]:
        """Return what its file is to be told; `count` 0: packets without end."""
        return [
            f"count {count}",
            f"delay {delay_ns}",
            f"pkt_size {_PACKET_BYTES}",
            "flag NO_TIMESTAMP",
            f"src_mac {self.src_mac}",
            f"dst_mac {self.dst_mac}",
            f"src_min {self.src}",
            f"src_max {self.src}",
            f"dst_min {self.dst}",
            f"dst_max {self.dst}",
            f"udp_src_min {self.src_ports[0]}",
            f"udp_src_max {self.src_ports[1]}",
            f"udp_dst_min {self.dst_ports[0]}",
            f"udp_dst_max {self.dst_ports[1]}",
        ]


def load_module() -> None:
    """Load pktgen before the namespaces are made in which it is used; raises RuntimeError where there is none."""
    done = subprocess.run(["modprobe", "pktgen"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"this bench needs the kernel's packet generator: {done.stderr.strip()}")


def send(namespace: str, stream: Stream, *, count: int) -> None:
    """Send so many packets from a network namespace."""
    with inside(namespace):
        _prepare([stream], count=count)
        _control("start")


@contextmanager
def sending(namespace: str, streams: Sequence[Stream]) -> Iterator[None]:
    """Send from a network namespace while the context lasts."""
    with inside(namespace):
        _prepare(streams, count=0)

    def start() -> None:
        with inside(namespace):
            _control("start")  # answers when all has been sent

    starter = threading.Thread(target=start)
    starter.start()
    try:
        time.sleep(_STARTED_S)
        yield
    finally:
        with inside(namespace):
            _control("stop")
        starter.join()


def delays_ns(streams: Sequence[Stream]) -> list[int]:
    """Return for each stream the delay after a packet.

    The generator takes the stream that is due next. With delays shorter than a packet takes, all are always late, so
    that they only say who is next, in proportion to the weights. Streams do not begin in one moment: the longer the
    delays, the fewer packets has one of them sent when the others join in. Without a delay they never would.
    """
    if len(streams) == 1:
        return [0]
    most = max(stream.weight for stream in streams)
    return [_DELAY_NS * most // stream.weight for stream in streams]


def _prepare(streams: Sequence[Stream], *, count: int) -> None:
    _remove_streams()
    for number, (stream, delay_ns) in enumerate(zip(streams, delays_ns(streams), strict=True)):
        name = f"{stream.device}@{number}"
        _tell(_THREAD, f"add_device {name}")
        for command in stream.commands(count=count, delay_ns=delay_ns):
            _tell(name, command)


def _remove_streams() -> None:
    """The generator's thread does it when it comes to it, if need be after streams have been added anew."""
    thread = _FILES / _THREAD
    if "@" not in thread.read_text():
        return
    _tell(_THREAD, "rem_device_all")
    deadline_s = time.monotonic() + _PATIENCE_S
    while "@" in (said := thread.read_text()):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"pktgen keeps its streams: {said}")
        time.sleep(_POLL_S)


def _control(command: str) -> None:
    _tell("pgctrl", command)


def _tell(name: str, command: str) -> None:
    with (_FILES / name).open("w") as file:
        file.write(f"{command}\n")
