from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from tests.fakes.guests import TERMS, make_placement
from vrouter_vm.guest_services.service import Directory, Inbox
from vrouter_vm.model import VmiUuid

FIRST = make_placement()
OTHER = replace(
    FIRST, port=replace(FIRST.port, vmi_uuid=VmiUuid("other"), addresses=(ip_address("10.1.1.12"),)), vlan=102
)
VMI = FIRST.port.vmi_uuid


def test_changes_are_merged_and_a_whole_picture_replaces_them() -> None:
    inbox = Inbox()
    assert inbox.update({}) is None
    inbox.take({VMI: FIRST}, is_all=False)
    inbox.take({VmiUuid("other"): OTHER}, is_all=False)
    known = inbox.update({})
    assert known == {VMI: FIRST, "other": OTHER}
    assert inbox.update(known) is None
    inbox.take({VMI: None}, is_all=False)
    assert inbox.update(known) == {"other": OTHER}
    inbox.take({VMI: FIRST}, is_all=True)
    assert inbox.update(known) == {VMI: FIRST}
    inbox.take({}, is_all=True)
    assert inbox.update(known) == {}


def test_a_guest_is_computed_anew_only_when_its_placement_or_the_terms_have_changed() -> None:
    terms = [TERMS]
    directory = Directory(lambda: terms[0])
    directory.inbox.take({VMI: FIRST, VmiUuid("other"): OTHER}, is_all=True)
    assert directory.refresh()
    before = dict(directory.guests)
    directory.inbox.take({VMI: replace(FIRST, network=replace(FIRST.network, mtu_bytes=1300))}, is_all=False)
    assert directory.refresh()
    assert directory.guests[102] is before[102]
    assert directory.guests[101].mtu_bytes == 1300
    assert not directory.refresh()
    terms[0] = replace(TERMS, mtu_bytes=1400)
    directory.inbox.take({VMI: FIRST, VmiUuid("other"): OTHER}, is_all=True)
    assert directory.refresh()
    assert {guest.mtu_bytes for guest in directory.guests.values()} == {1400}


def test_a_guest_that_left_is_on_no_vlan() -> None:
    directory = Directory(lambda: TERMS)
    directory.inbox.take({VMI: FIRST}, is_all=True)
    directory.refresh()
    assert directory.on(101) is not None
    directory.inbox.take({VMI: None}, is_all=False)
    directory.refresh()
    assert directory.on(101) is None
