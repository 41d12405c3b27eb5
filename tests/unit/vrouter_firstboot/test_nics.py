import pytest

from tf_reconcile.errors import ConfigError
from vrouter_firstboot.nics import Nic, Role, assign_roles, management_nic

RANGE = ("00:50:56:00:00:00", "00:50:56:3F:FF:FF")


def nic(name: str, mac: str, *, label: str = "", path: str = "") -> Nic:
    return Nic(name=name, mac=mac, label=label, path=path or f"/sys/devices/pci0000:00/{name}")


def names(*nics: Nic, **chosen: str) -> dict[str, str]:
    roles = assign_roles(
        nics, chosen={Role[key.upper()]: mac for key, mac in chosen.items()}, gateway_macs=RANGE, file="settings"
    )
    return {role.setting: found.name for role, found in roles.items()}


MANAGEMENT = nic("ens192", "00:50:56:9a:00:01", label="Ethernet0")
UNDERLAY = nic("ens224", "00:50:56:9a:00:02", label="Ethernet1")
TRUNK = nic("ens161", "00:50:56:00:00:01", label="Ethernet2")
ALL = {"management": "ens192", "underlay": "ens224", "trunk": "ens161"}


def test_the_trunk_is_told_by_its_mac_and_the_others_by_the_order_of_the_hardware() -> None:
    assert names(TRUNK, UNDERLAY, MANAGEMENT) == ALL


def test_the_firmwares_label_counts_before_the_bus_and_as_a_number() -> None:
    tenth = nic("a", "00:50:56:9a:00:01", label="Ethernet10", path="/sys/devices/1")
    second = nic("b", "00:50:56:9a:00:02", label="Ethernet2", path="/sys/devices/2")
    assert names(tenth, second, TRUNK) == {"management": "b", "underlay": "a", "trunk": "ens161"}


def test_without_labels_the_place_on_the_bus_counts_and_not_the_kernels_name() -> None:
    first = nic("eth9", "52:54:00:00:00:01", path="/sys/devices/pci0000:00/0000:00:03.0/virtio1")
    second = nic("eth0", "52:54:00:00:00:02", path="/sys/devices/pci0000:00/0000:00:04.0/virtio0")
    assert names(second, TRUNK, first) == {"management": "eth9", "underlay": "eth0", "trunk": "ens161"}


def test_a_mac_in_the_settings_counts_before_all_else() -> None:
    found = names(MANAGEMENT, UNDERLAY, TRUNK, management="00:50:56:9A:00:02", trunk="00:50:56:9a:00:01")
    assert found == {"management": "ens224", "underlay": "ens161", "trunk": "ens192"}


def test_a_fourth_nic_is_left_alone() -> None:
    assert names(MANAGEMENT, UNDERLAY, TRUNK, nic("ens256", "00:50:56:9a:00:03", label="Ethernet3")) == ALL


def test_a_mac_that_no_nic_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"settings: nics\.underlay: no NIC of this VM has this MAC.*ens224"):
        names(MANAGEMENT, UNDERLAY, TRUNK, underlay="00:50:56:9a:00:99")


def test_one_nic_cannot_have_two_roles() -> None:
    with pytest.raises(ConfigError, match=r"nics\.underlay"):
        names(MANAGEMENT, UNDERLAY, TRUNK, management=MANAGEMENT.mac, underlay=MANAGEMENT.mac)


def test_without_a_gateways_mac_there_is_no_trunk() -> None:
    with pytest.raises(ConfigError, match=r"nics\.trunk: no NIC has a gateway's MAC.*00:50:56:00:00:00 to"):
        names(MANAGEMENT, UNDERLAY)


def test_two_gateways_macs_need_a_choice() -> None:
    second = nic("ens256", "00:50:56:3f:ff:ff")
    with pytest.raises(ConfigError, match="several NICs have a gateway's MAC"):
        names(MANAGEMENT, UNDERLAY, TRUNK, second)
    assert names(MANAGEMENT, UNDERLAY, TRUNK, second, trunk=second.mac)["trunk"] == "ens256"


def test_a_missing_nic_is_named_by_its_role() -> None:
    with pytest.raises(ConfigError, match=r"no NIC is left for the underlay network.*ens161"):
        names(MANAGEMENT, TRUNK)


def test_where_the_roles_cannot_be_told_the_vm_is_reached_by_the_first_nic_that_is_no_trunk() -> None:
    unset = nic("ens161", "00:50:56:9a:00:03", label="Ethernet2")
    assert management_nic([UNDERLAY, unset, MANAGEMENT], chosen=None, gateway_macs=RANGE) == MANAGEMENT
    assert management_nic([TRUNK], chosen=None, gateway_macs=RANGE) is None


def test_a_nic_that_was_told_before_stays_the_one_to_be_reached_by() -> None:
    named = nic("mgmt", "00:50:56:9a:00:02", label="Ethernet1")
    assert management_nic([MANAGEMENT, named], chosen=None, gateway_macs=RANGE) == named
    assert management_nic([MANAGEMENT, named], chosen=MANAGEMENT.mac.upper(), gateway_macs=RANGE) == MANAGEMENT
    assert management_nic([MANAGEMENT, named], chosen="00:50:56:9a:00:99", gateway_macs=RANGE) is None
