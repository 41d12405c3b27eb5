from collections.abc import Iterable

import pytest

from tf_reconcile.errors import ConfigError
from vrouter_firstboot.files import SECRET, File
from vrouter_firstboot.network import render_links, render_management, render_underlay
from vrouter_firstboot.nics import Nic, Role
from vrouter_firstboot.settings import ManagementSettings, UnderlaySettings

PROFILE = "/etc/NetworkManager/system-connections/tf-mgmt.nmconnection"


def by_path(files: Iterable[File]) -> dict[str, File]:
    return {file.path: file for file in files}


def management(settings: ManagementSettings) -> str:
    return by_path(render_management(settings, file="settings"))[PROFILE].content


def test_each_role_gets_a_link_file_that_no_vlan_device_matches() -> None:
    nic = Nic(name="ens161", mac="00:50:56:00:00:01", label="", path="")
    assert [(file.path, file.content) for file in render_links({Role.TRUNK: nic})] == [
        (
            "/etc/systemd/network/10-tf-trunk.link",
            "[Match]\nMACAddress=00:50:56:00:00:01\nType=ether\n\n[Link]\nName=trunk\n",
        )
    ]


def test_a_static_address_switches_the_other_ip_version_off() -> None:
    text = management(
        ManagementSettings(
            address="198.51.100.31/24",
            gateway="198.51.100.1",
            dns=("198.51.100.53", "198.51.100.54"),
            search=("example.com",),
        )
    )
    assert "[ipv4]\nmethod=manual\naddress1=198.51.100.31/24,198.51.100.1\ndns=198.51.100.53;198.51.100.54;\n" in text
    assert text.endswith("dns-search=example.com;\n\n[ipv6]\nmethod=disabled\n")


def test_without_an_address_the_management_network_is_dhcps() -> None:
    text = management(ManagementSettings())
    assert text.count("method=auto") == 2
    assert "interface-name=mgmt" in text


def test_ipv6_is_an_address_like_any() -> None:
    text = management(ManagementSettings(address="2001:db8::31/64", gateway="2001:db8::1"))
    assert "[ipv4]\nmethod=disabled\n" in text
    assert "[ipv6]\nmethod=manual\naddress1=2001:db8::31/64,2001:db8::1\n" in text


def test_a_profile_is_for_root_only_as_networkmanager_demands() -> None:
    files = by_path(render_management(ManagementSettings(), file="settings"))
    assert files[PROFILE].mode == SECRET


def test_keys_time_servers_and_name_are_files_and_empty_lists_are_empty_files() -> None:
    settings = ManagementSettings(ntp=("198.51.100.123",), authorized_keys=("ssh-ed25519 AAAA me",), hostname="vr-a")
    files = by_path(render_management(settings, file="settings"))
    assert files["/etc/chrony/sources.d/tf-vsphere.sources"].content == "server 198.51.100.123 iburst\n"
    assert files["/etc/ssh/authorized_keys.d/tfadmin"].content == "ssh-ed25519 AAAA me\n"
    assert files["/etc/hostname"].content == "vr-a\n"
    assert "127.0.1.1 vr-a\n" in files["/etc/hosts"].content
    nothing = by_path(render_management(ManagementSettings(), file="settings"))
    assert nothing["/etc/ssh/authorized_keys.d/tfadmin"].content == ""
    assert "/etc/hostname" not in nothing


def test_the_underlay_never_has_the_default_route() -> None:
    (profile,) = render_underlay(
        UnderlaySettings(address="192.0.2.31/24", gateway="192.0.2.1", routes=("203.0.113.0/24",)), file="settings"
    )
    assert "[ethernet]\nmtu=1600\n" in profile.content
    assert (
        "[ipv4]\nmethod=manual\naddress1=192.0.2.31/24\nnever-default=true\nroute1=203.0.113.0/24,192.0.2.1\n"
        in profile.content
    )
    assert "[ipv6]\nmethod=disabled\n" in profile.content


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (ManagementSettings(address="198.51.100.31"), "management.address"),
        (ManagementSettings(address="198.51.100.300/24"), "management.address"),
        (ManagementSettings(address="198.51.100.31/24", gateway="198.51.101.1"), "management.gateway"),
        (ManagementSettings(gateway="198.51.100.1"), "management.gateway"),
        (ManagementSettings(dns=("198.51.100.53", "dns.example.com")), "management.dns[1]"),
        (ManagementSettings(address="198.51.100.31/24", dns=("2001:db8::53",)), "management.dns[0]"),
        (ManagementSettings(ntp=("a b",)), "management.ntp[0]"),
    ],
)
def test_a_wrong_management_value_is_named_by_its_key(settings: ManagementSettings, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        list(render_management(settings, file="settings"))
    assert refused.value.key == key
    assert refused.value.allowed


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (UnderlaySettings(address="192.0.2.31"), "underlay.address"),
        (UnderlaySettings(address="192.0.2.31/24", routes=("203.0.113.0/24",)), "underlay.routes"),
        (UnderlaySettings(address="192.0.2.31/24", gateway="192.0.2.1", routes=("x",)), "underlay.routes[0]"),
        (UnderlaySettings(address="192.0.2.31/24", gateway="192.0.3.1"), "underlay.gateway"),
    ],
)
def test_a_wrong_underlay_value_is_named_by_its_key(settings: UnderlaySettings, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        list(render_underlay(settings, file="settings"))
    assert refused.value.key == key
