"""Objects of many guests at once, against the embedded config API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import NAMESPACE_DNS, uuid5

import pytest

from lab.controller import Controller
from tf_api.client import ConfigApi
from tf_reconcile.errors import Conflict, Rejected
from vcenter_manager.actions import (
    CreateInstanceIp,
    CreateInterface,
    CreateVm,
    DeleteInterface,
    TfAction,
    UpdateInterface,
)
from vcenter_manager.model import (
    Family,
    InstanceIpUuid,
    MacAddress,
    Network,
    ProjectUuid,
    Tenancy,
    VmiUuid,
    VmUuid,
    VnUuid,
)
from vcenter_manager.tf_objects import TfObjects

PROJECT = ("default-domain", "vCenter")
GUESTS = [f"guest-{number}" for number in range(20)]


class Tf:
    """A tenant with one small network, and the manager's adapter to it."""

    def __init__(self, api: ConfigApi) -> None:
        self.api = api
        project = api.create("project", {"fq_name": [*PROJECT], "parent_type": "domain"})
        group = api.fqname_to_uuid("security-group", (*PROJECT, "default")) or api.create(
            "security-group", {"fq_name": [*PROJECT, "default"], "parent_type": "project"}
        )
        api.create("network-ipam", {"fq_name": [*PROJECT, "ipam"], "parent_type": "project"})
        subnets = {"ipam_subnets": [{"subnet": {"ip_prefix": "10.0.0.0", "ip_prefix_len": 27}}]}
        refs = [{"to": [*PROJECT, "ipam"], "attr": subnets}]
        body = {"fq_name": [*PROJECT, "blue"], "parent_type": "project", "network_ipam_refs": refs}
        self.network = Network(
            vn_uuid=VnUuid(api.create("virtual-network", body)),
            fq_name=(*PROJECT, "blue"),
            families=frozenset({Family.V4}),
        )
        self.tenancy = Tenancy(
            project_uuid=ProjectUuid(project),
            project=PROJECT,
            security_group_uuid=group,
            security_group=(*PROJECT, "default"),
        )
        self.objects = TfObjects(api)

    def create(self, name: str, nic: int = 4000) -> Sequence[TfAction]:
        """Return what makes the interface and the address of a NIC."""
        vmi_uuid = vmi_uuid_of(name, nic)
        interface = CreateInterface(
            subject=name,
            vm_uuid=vm_uuid_of(name),
            vmi_uuid=vmi_uuid,
            display_name=name,
            mac=MacAddress("00:50:56:80:00:01"),
            network=self.network,
            tenancy=self.tenancy,
        )
        address = CreateInstanceIp(
            subject=name,
            vm_uuid=vm_uuid_of(name),
            vmi_uuid=vmi_uuid,
            instance_ip_uuid=InstanceIpUuid(str(uuid5(NAMESPACE_DNS, f"{vmi_uuid}.ip"))),
            interface_fq_name=(*PROJECT, vmi_uuid),
            family=Family.V4,
            network=self.network,
        )
        return [interface, address]

    def create_guest(self, name: str) -> Sequence[TfAction]:
        """Return what makes all objects of a guest with one NIC."""
        vm = CreateVm(subject=name, vm_uuid=vm_uuid_of(name), display_name=name, vcenter_uuid="vcenter")
        return [vm, *self.create(name)]

    def addresses(self, *names: str) -> list[str]:
        """Return the addresses of guests as the adapter sees them, without a full look."""
        seen = self.objects.observe([vm_uuid_of(name) for name in names], is_full=False)
        return [
            str(ip.address) for guest in seen.values() for each in guest.interfaces.values() for ip in each.instance_ips
        ]


def vm_uuid_of(name: str) -> VmUuid:
    return VmUuid(str(uuid5(NAMESPACE_DNS, name)))


def vmi_uuid_of(name: str, nic: int) -> VmiUuid:
    return VmiUuid(str(uuid5(NAMESPACE_DNS, f"{name}.{nic}")))


@pytest.fixture
def tf() -> Iterator[Tf]:
    with Controller() as controller:
        api = controller.api()
        yield Tf(api)
        api.close()


def test_the_objects_of_many_guests_are_made_and_remembered(tf: Tf) -> None:
    assert not tf.addresses(*GUESTS)
    assert not tf.objects.apply([action for name in GUESTS for action in tf.create_guest(name)])
    remembered = tf.addresses(*GUESTS)
    assert len(set(remembered)) == len(GUESTS)
    tf.objects.observe([], is_full=True)  # forgets all
    assert sorted(tf.addresses(*GUESTS)) == sorted(remembered)


def test_what_one_guest_is_refused_costs_the_others_nothing(tf: Tf) -> None:
    """Of thirty-five guests twenty-eight find an address; what a guest has got so far is there."""
    names = [f"many-{number}" for number in range(35)]
    assert not tf.addresses(*names)
    failures = tf.objects.apply([action for name in names for action in tf.create_guest(name)])
    assert len(failures) == 7
    assert all(isinstance(action, CreateInstanceIp) for action in failures)
    assert all(isinstance(error, Rejected) for error in failures.values())
    assert len(set(tf.addresses(*names))) == 28
    assert len(tf.api.list("virtual-machine-interface")) == 35


def test_after_a_failure_nothing_more_of_that_guest_is_tried(tf: Tf) -> None:
    assert not tf.addresses("twice", "other")
    twice = tf.create_guest("twice")
    assert not tf.objects.apply(twice)
    failures = tf.objects.apply([*twice, *tf.create_guest("other")])
    assert list(failures) == [*twice]
    assert len(tf.addresses("twice", "other")) == 2


def test_a_new_mac_and_a_new_nic_of_one_guest_go_together(tf: Tf) -> None:
    assert not tf.addresses("web")
    assert not tf.objects.apply(tf.create_guest("web"))
    mac = MacAddress("00:50:56:80:00:02")
    update = UpdateInterface(subject="web", vm_uuid=vm_uuid_of("web"), vmi_uuid=vmi_uuid_of("web", 4000), mac=mac)
    assert not tf.objects.apply([update, *tf.create("web", 4001)])
    seen = tf.objects.observe([vm_uuid_of("web")], is_full=False)[vm_uuid_of("web")]
    assert seen.interfaces[vmi_uuid_of("web", 4000)].mac == mac
    assert len(tf.addresses("web")) == 2


def test_what_refers_to_an_interface_is_not_asked_for_any_more_once_its_guest_has_left(tf: Tf) -> None:
    assert not tf.addresses("web")
    assert not tf.objects.apply(tf.create_guest("web"))
    delete = DeleteInterface(subject="web", vm_uuid=vm_uuid_of("web"), vmi_uuid=vmi_uuid_of("web", 4000))
    assert [type(error) for error in tf.objects.apply([delete]).values()] == [Conflict], "its address refers to it"

    def reads(*names: str) -> int:
        before = tf.api.calls["read"]
        tf.addresses(*names)
        return tf.api.calls["read"] - before

    assert reads("web") == 1
    assert reads() == 0
