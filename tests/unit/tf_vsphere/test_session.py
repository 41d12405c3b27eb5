from __future__ import annotations

from pathlib import Path

import pytest

from tf_reconcile.errors import ConfigError
from tf_vsphere import tls
from tf_vsphere.session import newest_version
from tf_vsphere.settings import VsphereSettings


def versions(own: str, *prior: str, name: str = "urn:vim25") -> str:
    priors = "".join(f"<version>{version}</version>" for version in prior)
    return (
        '<?xml version="1.0" encoding="UTF-8"?><namespaces version="1.0"><namespace><name>urn:other</name>'
        f"<version>8.0.3.0</version></namespace><namespace><name>{name}</name><version>{own}</version>"
        f"<priorVersions>{priors}</priorVersions></namespace></namespaces>"
    )


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (versions("8.0.3.0", "8.0.2.0", "6.0"), "vim.version.v8_0_3_0"),
        (versions("99.0.0.0", "8.0.2.0", "6.0"), "vim.version.v8_0_2_0"),
        (versions("99.0.0.0", "98.0", "6.5"), "vim.version.version11"),
        (versions("99.0.0.0", "98.0"), None),
        (versions("8.0.3.0", name="urn:sms"), None),
    ],
)
def test_the_newest_version_that_both_sides_know_is_spoken(document: str, expected: str | None) -> None:
    assert newest_version(document) == expected


def settings(**changes: object) -> VsphereSettings:
    return VsphereSettings(host="vc.example", user="tf", password_file="/none", **changes)  # type: ignore[arg-type]


def test_a_malformed_thumbprint_is_refused_before_any_connection() -> None:
    with pytest.raises(ConfigError, match=r"plugin.yaml: vcenter.thumbprint_sha256: .*allowed: 64 hexadecimal digits"):
        tls.make_context(settings(thumbprint_sha256="12:34"), file="plugin.yaml", section="vcenter")


@pytest.mark.parametrize("text", [None, "not a certificate"])
def test_a_ca_file_that_is_missing_or_holds_none_is_named(tmp_path: Path, text: str | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if text is not None:
        ca_file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        tls.make_context(settings(ca_file=str(ca_file)), file="plugin.yaml", section="vcenter")
    assert (caught.value.key, caught.value.value) == ("vcenter.ca_file", str(ca_file))


def test_verification_is_switched_off_only_by_name_and_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert tls.make_context(settings(), file="f", section="vcenter").check_hostname
    assert caplog.messages == []
    assert not tls.make_context(settings(verify=False), file="f", section="vcenter").check_hostname
    assert caplog.messages == ["TLS verification is off"]
