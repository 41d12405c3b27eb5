import pytest

from tf_reconcile.errors import ConfigError
from tf_runtime.settings import convert_settings
from vrouter_firstboot.ovf_environment import parse_ovf_environment, property_types
from vrouter_firstboot.settings import SiteSettings

TEMPLATE = """<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"
    xmlns:ve="http://www.vmware.com/schema/ovfenv" oe:id="" ve:vCenterId="vm-31">
  <PlatformSection><Kind>VMware ESXi</Kind></PlatformSection>
  <PropertySection>{properties}</PropertySection>
</Environment>"""


def environment(**properties: str) -> str:
    lines = (f'<Property oe:key="{key.replace("__", ".")}" oe:value="{value}"/>' for key, value in properties.items())
    return TEMPLATE.format(properties="".join(lines))


def parse(**properties: str) -> dict[str, object]:
    return parse_ovf_environment(environment(**properties), file="OVF properties")


def test_a_filled_in_form_is_a_settings_document() -> None:
    document = parse(
        esxi__host="192.0.2.21",
        esxi__user="tf-vrouter",
        esxi__port="8443",
        esxi__verify="True",
        vcenter__host="vc.example.com",
        vcenter__user="tf@vsphere.local",
        vcenter__verify="false",
        dvswitch="dvs-tf",
        tf__servers="http://198.51.100.11:8082, http://198.51.100.12:8082",
        management__authorized_keys="ssh-ed25519 AAAA one,ssh-ed25519 BBBB two",
        underlay__mtu="9000",
    )
    settings = convert_settings(document, SiteSettings, file="OVF properties")
    assert settings.esxi.port == 8443
    assert (settings.esxi.verify, settings.vcenter.verify) == (True, False)
    assert settings.tf.servers == ("http://198.51.100.11:8082", "http://198.51.100.12:8082")
    assert settings.management.authorized_keys == ("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two")
    assert settings.underlay.mtu == 9000


def test_fields_left_empty_and_other_products_properties_are_not_settings() -> None:
    assert parse(dvswitch="", esxi__host=" ", vm__name="x", manager__vlan="1") == {}


@pytest.mark.parametrize(("key", "value"), [("esxi__port", "many"), ("esxi__verify", "maybe"), ("underlay__mtu", "12")])
def test_what_does_not_fit_is_refused_by_the_settings_by_name(key: str, value: str) -> None:
    base = {"esxi__host": "a", "esxi__user": "b", "vcenter__host": "c", "vcenter__user": "d", "dvswitch": "e"}
    document = parse(**{**base, "tf__servers": "http://x", key: value})
    with pytest.raises(ConfigError) as refused:
        convert_settings(document, SiteSettings, file="OVF properties")
    assert refused.value.key == key.replace("__", ".")


def test_what_is_no_xml_is_refused() -> None:
    with pytest.raises(ConfigError, match="not an OVF environment"):
        parse_ovf_environment("<Environment>", file="OVF properties")


def test_no_property_is_a_secret() -> None:
    keys = [key for key, _ in property_types()]
    assert "esxi.host" in keys
    assert not [key for key in keys if any(word in key for word in ("password", "token", "secret"))]
