from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from pyVmomi import vim

from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcenter import PLAIN_SITE, Vcenter
from tf_reconcile.errors import ConfigError, Transient
from tf_vsphere.collector import MoRef
from tf_vsphere.dvswitch import find_dvswitch, find_dvswitch_site
from tf_vsphere.session import Session, connect


def test_a_start_costs_two_requests_and_a_close_ends_the_session(vcenter: Vcenter) -> None:
    before = vcenter.sessions()
    session = connect(vcenter.settings(), "test.yaml", "vcenter")
    assert vcenter.calls() == {"RetrieveServiceContent": 1, "Login": 1}
    assert vcenter.sessions() == before + 1
    session.close()
    assert vcenter.sessions() == before


def test_the_servers_own_version_is_spoken(session: Session) -> None:
    assert session.content.about.apiVersion == "8.0.3.0"
    assert session._stub.version == "vim.version.v8_0_3_0"


def test_a_server_that_does_not_speak_the_opening_version_is_asked_what_it_speaks(vcenter: Vcenter) -> None:
    vcenter.add_rule(level="soap", method="RetrieveServiceContent", fault="InvalidRequest", count=1)
    session = connect(vcenter.settings(), "test.yaml", "vcenter")
    assert vcenter.calls() == {"RetrieveServiceContent": 2, "vimServiceVersions": 1, "Login": 1}
    assert session._stub.version == "vim.version.v8_0_3_0"
    session.close()


def test_a_server_newer_than_what_is_known_is_spoken_to_in_the_newest_version_that_both_know(tmp_path: Path) -> None:
    with Vcenter(tmp_path, {**PLAIN_SITE, "api_version": "8.0.3.9999"}) as vcenter:
        session = connect(vcenter.settings(), "test.yaml", "vcenter")
        assert vcenter.calls() == {"RetrieveServiceContent": 1, "vimServiceVersions": 1, "Login": 1}
        assert session._stub.version == "vim.version.version12"  # 6.7, the next that the simulator lists
        session.close()


def test_two_sessions_of_one_process_do_not_share_anything(vcenter: Vcenter, session: Session) -> None:
    other = connect(vcenter.settings(), "test.yaml", "vcenter")
    other.close()
    assert session.call("read", "the clock", session.read_current_time) is not None
    assert session.generation == 1


def test_an_expired_session_is_renewed_within_the_call(vcenter: Vcenter, session: Session) -> None:
    vcenter.expire_sessions()
    assert session.call("read", "the clock", session.read_current_time) is not None
    assert session.generation == 2
    assert vcenter.calls()["Login"] == 2


def test_a_session_that_is_alive_after_all_is_renewed_too(vcenter: Vcenter, session: Session) -> None:
    vcenter.add_rule(level="soap", method="CurrentTime", fault="NotAuthenticated", count=1)
    assert session.call("read", "the clock", session.read_current_time) is not None
    assert session.generation == 2


def test_an_answer_that_cannot_be_decoded_is_the_servers_fault(vcenter: Vcenter, session: Session) -> None:
    nonsense = {"type": "no type at all", "name": "x"}
    vcenter.add_rule(level="soap", method="CurrentTime", fault="ResourceInUse", fields=nonsense, count=1)
    with pytest.raises(Transient, match="UndecodableError: CurrentTime"):
        session.call("read", "the clock", session.read_current_time)
    assert session.call("read", "the clock", session.read_current_time) is not None


def test_a_closed_session_says_so(vcenter: Vcenter) -> None:
    session = connect(vcenter.settings(), "test.yaml", "vcenter")
    session.close()
    with pytest.raises(Transient, match="not logged in"):
        session.call("read", "the clock", session.read_current_time)
    session.keep_alive()
    session.close()


def test_a_changed_password_is_read_again_and_a_wrong_one_is_tried_once_lest_the_account_be_locked(
    own_vcenter: Vcenter, tmp_path: Path
) -> None:
    session = connect(own_vcenter.settings(), "test.yaml", "vcenter")
    right = (tmp_path / "password").read_text()
    (tmp_path / "password").write_text("changed\n")
    own_vcenter.expire_sessions()
    own_vcenter.forget_calls()
    with pytest.raises(Transient, match="InvalidLogin"):
        session.call("read", "the clock", session.read_current_time)
    for _ in range(5):
        with pytest.raises(Transient, match="not tried again"):
            session.call("read", "the clock", session.read_current_time)
    assert own_vcenter.calls()["Login"] == 1
    (tmp_path / "password").write_text(right)
    assert session.call("read", "the clock", session.read_current_time) is not None
    session.close()


def test_a_password_file_that_is_gone_when_the_session_ends_fails_the_call_and_not_the_process(
    own_vcenter: Vcenter, tmp_path: Path
) -> None:
    session = connect(own_vcenter.settings(), "test.yaml", "vcenter")
    (tmp_path / "password").rename(tmp_path / "away")
    own_vcenter.expire_sessions()
    with pytest.raises(Transient, match="cannot read the password"):
        session.call("read", "the clock", session.read_current_time)
    (tmp_path / "away").rename(tmp_path / "password")
    assert session.call("read", "the clock", session.read_current_time) is not None
    session.close()


def test_an_idle_session_is_kept_alive_and_a_busy_one_is_not_asked(vcenter: Vcenter) -> None:
    idle = connect(vcenter.settings(keep_alive_s=1e-9), "test.yaml", "vcenter")
    idle.keep_alive()
    idle.close()
    assert vcenter.calls()["CurrentTime"] == 1
    busy = connect(vcenter.settings(keep_alive_s=1000.0), "test.yaml", "vcenter")
    busy.keep_alive()
    busy.close()
    assert vcenter.calls()["CurrentTime"] == 1


def test_another_server_behind_the_pinned_address_is_refused_and_never_sees_the_session(own_vcenter: Vcenter) -> None:
    session = connect(own_vcenter.settings(), "test.yaml", "vcenter")
    own_vcenter.stop()
    own_vcenter.start()
    for _ in range(2):
        with pytest.raises(Transient) as caught:
            session.call("read", "the clock", session.read_current_time)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert own_vcenter.calls() == {}


def test_a_wrong_thumbprint_is_refused_with_the_one_that_was_seen(vcenter: Vcenter) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(vcenter.settings(thumbprint_sha256="ab" * 32), "test.yaml", "vcenter")
    assert caught.value.key == "vcenter.thumbprint_sha256"
    assert vcenter.sha256 in str(caught.value)
    assert "\n" not in str(caught.value)
    assert vcenter.calls() == {}


def test_a_thumbprint_with_colons_and_capitals_is_the_same(vcenter: Vcenter) -> None:
    with_colons = ":".join(vcenter.sha256[at : at + 2] for at in range(0, 64, 2)).upper()
    connect(vcenter.settings(thumbprint_sha256=with_colons), "test.yaml", "vcenter").close()


def test_an_unknown_authority_is_refused_and_a_known_one_is_accepted(vcenter: Vcenter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vcenter.ca_file: .*not trusted"):
        connect(vcenter.settings(thumbprint_sha256=None), "test.yaml", "vcenter")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(vcenter.pem)
    connect(vcenter.settings(thumbprint_sha256=None, ca_file=str(ca_file)), "test.yaml", "vcenter").close()


def test_a_wrong_password_is_named_without_being_shown(vcenter: Vcenter, tmp_path: Path) -> None:
    password_file = tmp_path / "wrong"
    password_file.write_text("hunter2\n")
    with pytest.raises(ConfigError) as caught:
        connect(vcenter.settings(password_file=str(password_file)), "test.yaml", "vcenter")
    assert caught.value.key == "vcenter.user"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_a_password_file_that_is_missing_or_empty_is_named(vcenter: Vcenter, tmp_path: Path, text: str | None) -> None:
    password_file = tmp_path / "empty"
    if text is not None:
        password_file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        connect(vcenter.settings(password_file=str(password_file)), "test.yaml", "vcenter")
    assert (caught.value.key, caught.value.value) == ("vcenter.password_file", str(password_file))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_port_where_nobody_listens_is_named(vcenter: Vcenter, silent_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"vcenter.host: cannot reach .*127.0.0.1:{port}"):
        connect(vcenter.settings(port=port), "test.yaml", "vcenter")


@pytest.mark.parametrize("changes", [{}, {"thumbprint_sha256": None, "verify": False}])
def test_a_silent_server_is_noticed(vcenter: Vcenter, silent_port: int, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"cannot reach .*timed out"):
        connect(vcenter.settings(port=silent_port, timeout_s=0.3, **changes), "test.yaml", "vcenter")


def test_the_switch_is_found_with_one_call(vcenter: Vcenter, session: Session) -> None:
    vcenter.forget_calls()
    switch = find_dvswitch(session, "dvs-tf")
    assert switch.name == "dvs-tf"
    assert switch.datacenter
    assert vcenter.calls() == {"RetrievePropertiesEx": 1}
    assert find_dvswitch(session, "dvs-tf", switch.datacenter) == switch


def test_with_the_switch_come_the_hosts_by_their_hardware_in_the_same_call(vcenter: Vcenter, session: Session) -> None:
    vcenter.forget_calls()
    site = find_dvswitch_site(session, "dvs-tf", file="test.yaml")
    assert vcenter.calls() == {"RetrievePropertiesEx": 1}
    assert site.dvswitch == find_dvswitch(session, "dvs-tf")
    (host,) = site.config.host
    assert [*site.hosts.values()] == [MoRef.of(host.config.host)]
    (uuid,) = site.hosts
    assert UUID(uuid)
    with pytest.raises(ConfigError, match=r"test.yaml: dvswitch: no such .*allowed: one of dvs-tf \(datacenter"):
        find_dvswitch_site(session, "dvs-other", file="test.yaml")


@pytest.mark.parametrize(("name", "datacenter"), [("dvs-other", None), ("dvs-tf", "elsewhere")])
def test_a_switch_that_is_not_there_is_answered_with_those_that_are(
    session: Session, name: str, datacenter: str | None
) -> None:
    with pytest.raises(ConfigError, match=r"test.yaml: dvswitch: no such .*allowed: one of dvs-tf \(datacenter"):
        find_dvswitch(session, name, datacenter)


def test_of_two_datacenters_with_a_switch_of_one_name_the_settings_have_to_name_one(own_vcenter: Vcenter) -> None:
    session = connect(own_vcenter.settings(), "test.yaml", "vcenter")
    with VsphereAdmin.connect(own_vcenter.simulator) as admin:
        folder = admin.content.rootFolder.CreateDatacenter("DC1").networkFolder
        config = vim.dvs.VmwareDistributedVirtualSwitch.ConfigSpec(name="dvs-tf")
        admin.wait([folder.CreateDVS_Task(vim.DistributedVirtualSwitch.CreateSpec(configSpec=config))])
    with pytest.raises(
        ConfigError, match=r"test.yaml: dvswitch: .*dvs-tf \(datacenter DC0\), dvs-tf \(datacenter DC1\)"
    ):
        find_dvswitch(session, "dvs-tf")
    first, second = (find_dvswitch(session, "dvs-tf", datacenter) for datacenter in ("DC0", "DC1"))
    assert first.uuid != second.uuid
    assert second.datacenter == "DC1"
    session.close()
