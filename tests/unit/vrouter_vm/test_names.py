import pytest

from vrouter_vm import names


@pytest.mark.parametrize(
    ("name", "vlan"),
    [
        ("eth1.1", 1),
        ("eth1.4094", 4094),
        ("eth1.4095", None),
        ("eth1.0", None),
        ("eth1.007", None),
        ("eth1", None),
        ("eth10.5", None),
        ("eth1.5.6", None),
        ("eth1.5 ", None),
    ],
)
def test_only_names_of_our_form_on_our_trunk_are_vifs(name: str, vlan: int | None) -> None:
    assert names.parse_vif("eth1", name) == vlan


@pytest.mark.parametrize(
    ("name", "network_id"),
    [("v1", 1), ("v65535", 65535), ("v65536", None), ("v0", None), ("v05", None), ("veth0", None), ("vrf5", None)],
)
def test_only_names_of_our_form_are_vrfs(name: str, network_id: int | None) -> None:
    assert names.parse_vrf(name) == network_id


@pytest.mark.parametrize(("trunk", "vlan"), [("eth1", 0), ("eth1", 4095), ("enp0s25f1p23", 5), ("", 5)])
def test_no_vif_name_is_built_that_could_not_be_used(trunk: str, vlan: int) -> None:
    with pytest.raises(ValueError, match="no vif name"):
        names.format_vif(trunk, vlan)


@pytest.mark.parametrize("network_id", [0, -1, 65536])
def test_a_network_id_without_a_conntrack_zone_has_no_vrf(network_id: int) -> None:
    for build in (names.format_vrf, names.table_of, names.zone_of):
        with pytest.raises(ValueError, match="network id"):
            build(network_id)


@pytest.mark.parametrize("table", [0, 253, 254, 255, 1000, 100_000, 165_536])
def test_tables_of_the_kernel_and_of_others_are_not_ours(table: int) -> None:
    assert not names.is_table_of_ours(table)


def test_our_routes_have_a_protocol_that_is_no_kernels_and_no_routing_daemons() -> None:
    """zebra takes routes of its own protocols (zebra/rt_netlink.h, 11 and 186 to 199) for what it has left behind."""
    of_rtnetlink_h = {*range(5), *range(8, 19), 42, 99, *range(186, 200)}
    assert names.ROUTE_PROTOCOL in set(range(256)) - of_rtnetlink_h
