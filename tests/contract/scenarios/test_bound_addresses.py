"""Addresses that users bind to a guest's interface: they survive whatever happens to it, and its end."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from bench.site import PROJECT, wait_until
from tests.contract.scenarios.guests import NIC, A, B, Guests

USER = {"id_perms": {"enable": True, "creator": "admin"}}


def interface_reference(guests: Guests, name: str) -> dict[str, object]:
    vmi = guests.vmi_in_tf(name)
    assert vmi is not None
    return {"to": vmi["fq_name"], "uuid": vmi["uuid"], "attr": None}


def bind_floating_ip(guests: Guests, name: str) -> tuple[str, str]:
    """Bind a floating-ip of network `red` to a guest's NIC, as a user would; return type and uuid."""
    api, number = guests.site.api, uuid.uuid4().hex[:8]
    red = api.fqname_to_uuid("virtual-network", (*PROJECT, "red"))
    pool = [*PROJECT, "red", f"pool-{number}"]
    api.create("floating-ip-pool", {"fq_name": pool, "parent_type": "virtual-network", "parent_uuid": red})
    body = {
        "fq_name": [*pool, f"public-{number}"],
        "parent_type": "floating-ip-pool",
        "project_refs": [{"to": [*PROJECT], "uuid": api.fqname_to_uuid("project", PROJECT), "attr": None}],
        "virtual_machine_interface_refs": [interface_reference(guests, name)],
    }
    return "floating-ip", api.create("floating-ip", body | USER)


def bind_instance_ip(guests: Guests, name: str) -> tuple[str, str]:
    """Give a guest's NIC a second address of its network, as a user would; return type and uuid."""
    vmi = guests.vmi_in_tf(name)
    assert vmi is not None
    body = {
        "fq_name": [f"second-{uuid.uuid4().hex[:8]}"],
        "virtual_network_refs": vmi["virtual_network_refs"],
        "virtual_machine_interface_refs": [interface_reference(guests, name)],
    }
    return "instance-ip", guests.site.api.create("instance-ip", body | USER)


def bound_to(guests: Guests, resource: str, bound: str) -> list[str]:
    """Return the interfaces that a user's address is bound to; it has to be there."""
    found = guests.site.api.read(resource, bound)
    assert found is not None, f"{resource} {bound} is gone"
    return [str(ref["uuid"]) for ref in found.get("virtual_machine_interface_refs") or ()]


Bind = Callable[[Guests, str], tuple[str, str]]
either = pytest.mark.parametrize("bind", [bind_floating_ip, bind_instance_ip], ids=["floating-ip", "instance-ip"])


@either
def test_an_address_that_a_user_bound_survives_power_moves_renames_and_restarts(guests: Guests, bind: Bind) -> None:
    guests.create("web")
    guests.wait_open("web")
    address, vmi = guests.site.agents[A].ports()["web"].addresses, guests.vmi_in_tf("web")
    assert vmi is not None
    resource, bound = bind(guests, "web")
    admin = guests.site.admin
    admin.power_off("web")
    guests.wait_ports(A)
    admin.power_on("web")
    guests.wait_open("web")
    admin.migrate("web", B)
    wait_until(lambda: "web" in guests.site.agents[B].ports(), what="served on B")
    admin.rename_vm("web", "shop")
    guests.site.managers[B].end()
    guests.site.managers[B].start().wait_in_sync()
    assert bound_to(guests, resource, bound) == [vmi["uuid"]]
    assert guests.site.agents[B].ports()["web"].addresses == address, "the guest's own address is still its own"


@either
def test_with_its_interface_the_binding_goes_and_the_address_stays_the_users(guests: Guests, bind: Bind) -> None:
    guests.create("web")
    guests.wait_open("web")
    vm_uuid, vmi = guests.nic("web")["instance_uuid"], guests.vmi_in_tf("web")
    assert vmi is not None
    resource, bound = bind(guests, "web")
    guests.site.admin.detach_nic("web", NIC)
    wait_until(lambda: guests.site.api.read("virtual-machine-interface", vmi["uuid"]) is None, what="interface gone")
    wait_until(lambda: guests.vm_in_tf(vm_uuid) is None, what="virtual-machine gone")
    assert bound_to(guests, resource, bound) == []
    guests.wait_in_sync()


@either
def test_the_sweep_after_a_deleted_vm_leaves_the_address_to_its_user_and_nothing_else(
    guests: Guests, bind: Bind
) -> None:
    guests.create("web")
    guests.wait_open("web")
    vm_uuid, vmi = guests.nic("web")["instance_uuid"], guests.vmi_in_tf("web")
    assert vmi is not None
    resource, bound = bind(guests, "web")
    guests.site.admin.delete_vm("web")
    wait_until(lambda: guests.vm_in_tf(vm_uuid) is None, what="swept")
    assert guests.site.api.read("virtual-machine-interface", vmi["uuid"]) is None
    assert bound_to(guests, resource, bound) == []
