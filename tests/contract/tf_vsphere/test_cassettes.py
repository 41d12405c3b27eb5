"""A few frozen exchanges: version negotiation and login, and the faults of ReconfigureDVPort.

They are replayed without any server, request for request, bodies compared. To record them again, from the simulator:

    RECORD_CASSETTES=1 pytest tests/contract/tf_vsphere/test_cassettes.py

Recording takes passwords, cookies and session keys out before anything is written; a test looks for them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import vcr
from pyVmomi import SoapAdapter, vim
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.stubs import VCRHTTPSConnection

from tests.contract.vcenter import PASSWORD, USER, Vcenter
from tf_reconcile.errors import BoundaryError, Conflict, Rejected
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.session import Session, connect
from tf_vsphere.settings import VsphereSettings
from tf_vsphere.tasks import TaskWaiter

CASSETTES = Path(__file__).parent / "cassettes"
IS_RECORDING = "RECORD_CASSETTES" in os.environ
_PASSWORD = re.compile(rb"<password>[^<]*</password>")
_SESSION_KEY = re.compile(rb"<key>[^<]*</key>")


def _without_secrets(request: Any) -> Any:
    request.uri = f"https://vcenter.example{request.path}"
    if request.body:
        request.body = _PASSWORD.sub(b"<password>filtered</password>", request.body)
    return request


def _without_session(response: Any) -> Any:
    response["headers"].pop("Set-Cookie", None)
    body = response["body"]["string"]
    if b"LoginResponse" in body:
        response["body"]["string"] = _SESSION_KEY.sub(b"<key>filtered</key>", body)
    return response


_RECORDER = vcr.VCR(
    cassette_library_dir=str(CASSETTES),
    record_mode="all" if IS_RECORDING else "none",
    match_on=("method", "path", "body"),
    filter_headers=("Cookie",),
    before_record_request=_without_secrets,
    before_record_response=_without_session,
    decode_compressed_response=True,
    # pyVmomi holds the class under its own name, where the recorder's usual patch does not reach it.
    custom_patches=((SoapAdapter, "HTTPSConnection", VCRHTTPSConnection),),
)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[VsphereSettings]:
    """The simulator while recording, otherwise an address that nobody ever connects to."""
    if IS_RECORDING:
        with Vcenter(tmp_path) as vcenter:
            yield vcenter.settings()
    else:
        password_file = tmp_path / "password"
        password_file.write_text(f"{PASSWORD}\n")
        yield VsphereSettings(host="192.0.2.1", user=USER, password_file=str(password_file), timeout_s=10.0)


@contextmanager
def logged_in(endpoint: VsphereSettings, cassette: str) -> Iterator[Session]:
    with _RECORDER.use_cassette(cassette):
        session = connect(endpoint, "test.yaml", "vcenter")
        try:
            yield session
        finally:
            session.close()


def set_vlan(session: Session, *, vlan_id: int, key: str | None = None, config_version: str | None = None) -> None:
    """Set the VLAN of the connected dvPort, or of the port `key`."""
    switch = find_dvswitch(session, "dvs-tf").managed_object
    criteria = vim.dvs.PortCriteria(connected=True)
    (port,) = session.call("read", "the connected dvPort", lambda: switch.FetchDVPorts(criteria))
    vmware = vim.dvs.VmwareDistributedVirtualSwitch
    spec = vim.dvs.DistributedVirtualPort.ConfigSpec(
        operation="edit",
        key=key or port.key,
        configVersion=config_version or port.config.configVersion,
        setting=vmware.VmwarePortConfigPolicy(vlan=vmware.VlanIdSpec(inherited=False, vlanId=vlan_id)),
    )
    task = session.call("set the VLAN of", "dvPort", lambda: switch.ReconfigureDVPort_Task([spec]))
    TaskWaiter(session).wait_for_task("set the VLAN of", "dvPort", task, timeout_s=60.0)


def test_version_negotiation_and_login(endpoint: VsphereSettings) -> None:
    with logged_in(endpoint, "login.yaml") as session:
        assert session._stub.version == "vim.version.v8_0_3_0"
        assert session.content.about.apiType == "VirtualCenter"
        assert re.fullmatch(r"[0-9a-f-]{36}", session.instance_uuid)


@pytest.mark.parametrize(
    ("cassette", "wrong", "kind", "fault"),
    [
        ("stale-config-version.yaml", {"config_version": "999"}, Conflict, "ConcurrentAccess"),
        ("unknown-port.yaml", {"key": "999999"}, Conflict, "NotFound"),
        ("vlan-out-of-range.yaml", {"vlan_id": 4095}, Rejected, "InvalidArgument"),
    ],
)
def test_a_refused_dvport_change(
    endpoint: VsphereSettings, cassette: str, wrong: dict[str, Any], kind: type[BoundaryError], fault: str
) -> None:
    with logged_in(endpoint, cassette) as session:
        with pytest.raises(kind) as caught:
            set_vlan(session, **{"vlan_id": 101, **wrong})
        assert caught.value.reason.startswith(fault)


@pytest.mark.skipif(IS_RECORDING, reason="a recording takes every request")
def test_another_request_than_the_recorded_one_has_no_answer(endpoint: VsphereSettings) -> None:
    with (
        logged_in(endpoint, "vlan-out-of-range.yaml") as session,
        pytest.raises(CannotOverwriteExistingCassetteException),
    ):
        set_vlan(session, vlan_id=4094)


@pytest.mark.parametrize("cassette", sorted(CASSETTES.glob("*.yaml")), ids=lambda path: str(path.name))
def test_no_cassette_holds_a_password_a_cookie_or_a_session_key(cassette: Path) -> None:
    text = cassette.read_text()
    assert PASSWORD not in text
    assert not re.search(r"^\s*(set-)?cookie:|vmware_soap_session", text, re.IGNORECASE | re.MULTILINE)
    assert set(re.findall(r"<password>([^<]*)", text)) <= {"filtered"}
    for login in re.findall(r"<LoginResponse.*?</LoginResponse>", text, re.DOTALL):
        assert "<key>filtered</key>" in login


def test_there_are_cassettes_to_look_at() -> None:
    assert {path.name for path in CASSETTES.glob("*.yaml")} == {
        "login.yaml",
        "stale-config-version.yaml",
        "unknown-port.yaml",
        "vlan-out-of-range.yaml",
    }
