"""Whatever a guest sends: nothing raises, and nobody is told anything that is not its own."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.guest_frames import dhcp4_frame, dhcp6_frame, solicitation, untagged
from tests.fakes.guests import dhcp4_options, dhcp6_message, dhcp6_option, make_guest, make_subnet
from vrouter_vm.guest_services import dhcp_options
from vrouter_vm.guest_services.frames import Datagram, parse_frame
from vrouter_vm.guest_services.responder import Responder
from vrouter_vm.model import DhcpOption, MacAddress

GUEST = make_guest()
OURS = {ip_address("10.1.1.11"), ip_address("0.0.0.0")}

options4 = st.dictionaries(st.integers(1, 254), st.binary(max_size=255), max_size=6)
options6 = st.lists(st.tuples(st.integers(0, 65535) | st.sampled_from([1, 2, 3, 4, 5, 14, 25]), st.binary(max_size=60)))
frames = st.one_of(
    st.binary(max_size=400),
    st.builds(dhcp4_frame, st.integers(0, 255), options4.map(lambda options: options)),
    st.builds(lambda kind, options: dhcp6_frame(dhcp6_message(kind, *options)), st.integers(0, 255), options6),
    st.builds(solicitation, st.integers(130, 140), target=st.ip_addresses(v=6)),
)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A frame with some bytes changed, cut off or appended."""
    frame = bytearray(draw(frames))
    for position, value in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)):
        if position < len(frame):
            frame[position] = value
    return bytes(frame[: draw(st.integers(0, len(frame)))] if draw(st.booleans()) else frame) + draw(
        st.binary(max_size=8)
    )


def responder() -> Responder:
    return Responder(router_mac=MacAddress("00:50:56:00:00:01"))


@given(frame=mangled(), is_checksummed=st.booleans())
def test_no_frame_of_a_guest_raises_and_no_answer_gives_another_address(frame: bytes, is_checksummed: bool) -> None:
    answer = responder().answer(frame, GUEST, is_checksummed=is_checksummed)
    if answer is None:
        return
    assert frame[6:12] == bytes.fromhex(GUEST.mac.replace(":", ""))
    seen = parse_frame(untagged(answer))
    assert seen is not None, "what we send is sound"
    if isinstance(seen, Datagram) and seen.source_port == 67:
        assert ip_address(seen.payload[16:20]) in OURS
        assert 53 in dhcp4_options(seen.payload)


@given(
    options=st.lists(
        st.builds(
            DhcpOption,
            name=st.sampled_from([*dhcp_options._TABLE4, *dhcp_options._TABLE6]) | st.text(max_size=12),
            value=st.text(max_size=60) | st.from_regex(r"([0-9./a-f:]{1,20} ?){1,4}", fullmatch=True),
            value_bytes=st.text(max_size=12) | st.from_regex(r"([0-9]{1,3} ){0,5}", fullmatch=True),
        ),
        max_size=5,
    )
)
def test_whatever_users_write_as_options_the_guest_is_served(options: list[DhcpOption]) -> None:
    guest = make_guest(
        make_subnet("10.1.1.0/24", dhcp_options=tuple(options)), make_subnet("fd00:1::/64", dhcp_options=tuple(options))
    )
    assert guest.ipv4 is not None
    for frame in (
        dhcp4_frame(1, {57: b"\x05\xdc"}),
        dhcp6_frame(dhcp6_message(1, (1, b"client"), (3, bytes(12) + dhcp6_option(13, b"\0\0")))),
        solicitation(133),
    ):
        answer = responder().answer(frame, guest)
        assert answer is not None
        assert parse_frame(untagged(answer)) is not None
        assert len(answer) <= 1518
