"""What guests are sent, byte by byte, reviewed like code, and understood by tcpdump, whose decoder is not ours."""

from __future__ import annotations

import shutil
import struct
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.fakes.guest_frames import dhcp4_frame, dhcp6_frame, solicitation
from tests.fakes.guests import dhcp6_message, make_guest, make_subnet
from vrouter_vm.guest_services.responder import Responder
from vrouter_vm.model import DhcpOption, MacAddress

HERE = Path(__file__).parent
GOLDEN = HERE / "guest-services.txt"
ROOMY = {57: (1500).to_bytes(2, "big")}
GUEST = make_guest(
    make_subnet(
        "10.1.1.0/24",
        host_routes=(ip_network("192.168.0.0/16"),),
        dhcp_options=(
            DhcpOption(name="domain-name", value="red.example"),
            DhcpOption(name="ntp-servers", value="10.9.9.1"),
        ),
    ),
    make_subnet("fd00:1::/64", dhcp_options=(DhcpOption(name="v6-domain-search", value="red.example"),)),
)
IDENTITY, ASSOCIATION = (1, b"\x00\x03\x00\x01\x00\x50\x56\xaa\x00\x01"), (3, bytes([0, 0, 0, 1]) + bytes(8))
ASKED = {
    "offer": dhcp4_frame(1, ROOMY),
    "acknowledgement": dhcp4_frame(3, {50: ip_address("10.1.1.11").packed, **ROOMY}),
    "refusal": dhcp4_frame(3, {50: ip_address("10.1.1.99").packed}),
    "advertise": dhcp6_frame(dhcp6_message(1, IDENTITY, ASSOCIATION)),
    "reply": dhcp6_frame(dhcp6_message(1, IDENTITY, (14, b""), ASSOCIATION)),
    "router advertisement": solicitation(133),
    "neighbour advertisement": solicitation(135, target=ip_address("fd00:1::12")),  # type: ignore[arg-type]
}


def answers() -> dict[str, bytes]:
    responder = Responder(router_mac=MacAddress("00:50:56:00:00:01"))
    found = {name: responder.answer(frame, GUEST) for name, frame in ASKED.items()}
    assert None not in found.values()
    return {name: frame for name, frame in found.items() if frame is not None}


def rendered() -> str:
    """Each frame as lines of 16 bytes."""
    lines = []
    for name, frame in answers().items():
        lines.append(f"{name}\n")
        lines += [f"  {frame[at : at + 16].hex(' ')}\n" for at in range(0, len(frame), 16)]
    return "".join(lines)


def test_the_frames_are_those_of_the_golden_file(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden", default=False):
        GOLDEN.write_text(rendered(), encoding="utf-8")
    assert rendered() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("offer", ["Your-IP 10.1.1.11", "Offer", "192.168.0.0/16:10.1.1.1", "MTU", "1450", '"red.example"']),
        ("acknowledgement", ["Your-IP 10.1.1.11", "ACK", "Lease-Time", "86400", "NTP", "10.9.9.1"]),
        ("refusal", ["NACK"]),
        ("advertise", ["dhcp6 advertise", "fd00:1::11 pltime:86400 vltime:172800", "DNS-server fd00:1::2"]),
        ("reply", ["dhcp6 reply", "rapid-commit", "fd00:1::11"]),
        (
            "router advertisement",
            [
                "router advertisement",
                "Flags [managed, other stateful]",
                "1450",
                "fd00:1::2",
                "red.example",
                "Flags [none]",
            ],
        ),
        ("neighbour advertisement", ["neighbor advertisement", "tgt is fd00:1::12, Flags [router, solicited]"]),
    ],
)
def test_tcpdump_reads_in_a_frame_what_was_meant(name: str, expected: list[str]) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("needs tcpdump")
    frame = answers()[name]
    capture = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    capture += struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame
    done = subprocess.run(["tcpdump", "-nn", "-vvv", "-e", "-r", "-"], input=capture, capture_output=True, check=False)
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "vlan 101" in said
    assert [part for part in expected if part not in said] == [], said
    assert not any(
        word in said for word in ("bad udp cksum", "bad icmp6 cksum", "wrong", "trunc", "[|", "malformed")
    ), said
