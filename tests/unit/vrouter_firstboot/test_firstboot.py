"""Whole runs over a root in a temporary folder. The machine and guestinfo are values that remember what was asked."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tf_reconcile.errors import ConfigError, Rejected
from vrouter_firstboot.firstboot import FirstBoot
from vrouter_firstboot.nics import Nic, Role
from vrouter_firstboot.report import Report, State
from vrouter_firstboot.sealing import seal
from vrouter_vm.settings import AgentSettings

NICS = [
    Nic(name="ens161", mac="00:50:56:00:00:01", label="Ethernet2", path="c"),
    Nic(name="ens192", mac="00:50:56:9a:00:01", label="Ethernet0", path="a"),
    Nic(name="ens224", mac="00:50:56:9a:00:02", label="Ethernet1", path="b"),
]
SETTINGS = """
esxi: {host: 192.0.2.21, user: tf-vrouter}
vcenter: {host: vcenter.example.com, user: tf@vsphere.local}
dvswitch: dvs-tf
tf: {servers: ["http://198.51.100.11:8082"]}
management: {address: 198.51.100.31/24, gateway: 198.51.100.1, authorized_keys: [ssh-ed25519 AAAA me]}
underlay: {address: 192.0.2.31/24}
"""
SECRETS = {"esxi-password": "Esxi-Geheimnis", "vcenter-password": "Vcenter-Geheimnis"}


class FakeMachine:
    def __init__(self) -> None:
        self.nics = list(NICS)
        self.names: dict[str, str] = {}
        self.restarted: list[str] = []
        self.profiles: list[str] = []
        self.hashes: list[tuple[str, str]] = []
        self.hostname = ""
        self.waits = 0
        self.is_hostname_refused = False
        self.has_mpls = True

    def check_kernel(self, settings: AgentSettings) -> None:
        if settings.overlay is not None and settings.overlay.mpls_over_udp and not self.has_mpls:
            raise ConfigError("the kernel has no MPLS", key="overlay.mpls_over_udp", value="true", allowed="false")

    def wait_for_nics(self, wanted: int) -> list[Nic]:
        return self.nics

    def rename_nics(self, roles: Mapping[Role, Nic]) -> tuple[str, ...]:
        self.names = {str(role): nic.name for role, nic in roles.items()}
        return ()

    def wait_for_devices(self) -> None:
        self.waits += 1

    def restart(self, units: Iterable[str]) -> None:
        self.restarted += units

    def reload_network(self, profiles: Iterable[str]) -> None:
        self.profiles += profiles

    def reload_time_servers(self) -> None:
        pass

    def set_hostname(self, name: str) -> None:
        if self.is_hostname_refused:
            raise Rejected("system", "hostname", name, "refused")
        self.hostname = name

    def set_password_hash(self, account: str, password_hash: str) -> None:
        self.hashes.append((account, password_hash))

    def label_files(self, paths: Iterable[str]) -> None:
        pass


class FakeGuestinfo:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.written: list[tuple[str, str]] = []

    def get(self, key: str) -> str | None:
        return self.values.get(key) or None

    def set(self, key: str, value: str) -> None:
        self.values[key] = value
        self.written.append((key, value))


class Vm:
    """A vRouter VM as far as first boot sees it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine = FakeMachine()
        self.guestinfo = FakeGuestinfo()
        self.drive: Path | None = None

    def boot(self) -> Report:
        return FirstBoot(root=self.root, machine=self.machine, guestinfo=self.guestinfo, drive=self._mounted).run()

    @contextmanager
    def _mounted(self) -> Iterator[Path | None]:
        yield self.drive

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

    def seal(self, secrets: Mapping[str, str]) -> None:
        self.guestinfo.values["tf.sealed"] = seal(secrets, public_key=self.guestinfo.values["tf.seal-key"])


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    return Vm(tmp_path)


@pytest.fixture
def ready_vm(vm: Vm) -> Vm:
    vm.guestinfo.values["tf.settings"] = SETTINGS
    vm.boot()
    vm.seal(SECRETS)
    assert vm.boot().state is State.OK
    return vm


def test_the_first_boot_without_anything_shows_the_key_and_is_reachable_by_dhcp(vm: Vm) -> None:
    report = vm.boot()
    assert report.state is State.WAITING
    assert vm.guestinfo.values["tf.seal-key"].startswith("tf-seal-key-1:")
    assert vm.guestinfo.values["tf.status"].startswith("waiting: settings")
    assert "method=auto" in vm.text("/etc/NetworkManager/system-connections/tf-mgmt.nmconnection")
    assert vm.machine.names == {"mgmt": "ens192", "underlay": "ens224", "trunk": "ens161"}
    assert not vm.has("/etc/tf-vsphere/vcenter-manager.yaml")


def test_settings_become_the_daemons_files_and_wait_for_the_secrets_by_name(vm: Vm) -> None:
    vm.guestinfo.values["tf.settings"] = SETTINGS
    report = vm.boot()
    assert report.state is State.WAITING
    assert "secrets: esxi-password, vcenter-password" in str(report)
    manager = yaml.safe_load(vm.text("/etc/tf-vsphere/vcenter-manager.yaml"))
    agent = yaml.safe_load(vm.text("/etc/tf-vsphere/vrouter-agent.yaml"))
    assert manager["esxi"]["password_file"] == "/run/credentials/vcenter-manager.service/esxi-password"
    assert manager["identity"]["trunk_interface"] == agent["trunk"]["interface"] == "trunk"
    assert manager["agent"]["port_directory"] == agent["port_api"]["directory"]
    assert "token_file" not in manager["tf"]


def test_sealed_secrets_become_credentials_and_are_cleared(ready_vm: Vm) -> None:
    for name, secret in SECRETS.items():
        file = ready_vm.root / "etc/credstore" / name
        assert file.read_text() == secret
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
    assert ready_vm.guestinfo.values["tf.sealed"] == ""
    assert ready_vm.guestinfo.values["tf.status"] == "ok: settings from guestinfo.tf.settings"


def test_no_secret_is_in_guestinfo_in_any_file_but_its_own_or_in_a_report(ready_vm: Vm) -> None:
    report = ready_vm.boot()
    shown = [str(report), *(f"{key} {value}" for key, value in ready_vm.guestinfo.written)]
    shown += [
        path.read_text() for path in ready_vm.root.rglob("*") if path.is_file() and path.parent.name != "credstore"
    ]
    private_key = ready_vm.text("/var/lib/tf-vsphere/seal.key")
    for text in shown:
        for secret in SECRETS.values():
            assert secret not in text
    assert not any(private_key in value for _, value in ready_vm.guestinfo.written)
    assert (ready_vm.root / "var/lib/tf-vsphere/seal.key").stat().st_mode & 0o777 == 0o600


def test_a_second_run_changes_nothing(ready_vm: Vm) -> None:
    before = {path: path.stat().st_mtime_ns for path in ready_vm.root.rglob("*")}
    ready_vm.machine.restarted.clear()
    ready_vm.guestinfo.written.clear()
    assert ready_vm.boot().state is State.OK
    assert {path: path.stat().st_mtime_ns for path in ready_vm.root.rglob("*")} == before
    assert ready_vm.machine.restarted == []
    assert ready_vm.guestinfo.written == []


def test_a_changed_setting_restarts_only_whom_it_concerns(ready_vm: Vm) -> None:
    ready_vm.machine.restarted.clear()
    ready_vm.guestinfo.values["tf.settings"] = SETTINGS.replace("192.0.2.21", "192.0.2.22")
    assert ready_vm.boot().state is State.OK
    assert ready_vm.machine.restarted == ["vcenter-manager.service"]


def test_a_changed_password_restarts_whom_it_concerns(ready_vm: Vm) -> None:
    ready_vm.machine.restarted.clear()
    ready_vm.seal({"esxi-password": "another"})
    assert ready_vm.boot().state is State.OK
    assert ready_vm.machine.restarted == ["vcenter-manager.service"]
    assert ready_vm.text("/etc/credstore/esxi-password") == "another"


def test_a_token_for_tf_reaches_both_daemons(ready_vm: Vm) -> None:
    ready_vm.seal({"tf-token": "t0ken"})
    assert ready_vm.boot().state is State.OK
    for unit in ("vcenter-manager", "vrouter-agent"):
        document = yaml.safe_load(ready_vm.text(f"/etc/tf-vsphere/{unit}.yaml"))
        assert document["tf"]["token_file"] == f"/run/credentials/{unit}.service/tf-token"
    assert set(ready_vm.machine.restarted) >= {"vcenter-manager.service", "vrouter-agent.service"}


def test_reflectors_in_the_settings_become_the_agents_overlay_and_the_password_its_credential(ready_vm: Vm) -> None:
    overlay = "overlay: {bgp: {asn: 64512, peers: [192.0.2.100, 192.0.2.101]}}\n"
    ready_vm.guestinfo.values["tf.settings"] = SETTINGS + overlay
    ready_vm.machine.restarted.clear()
    ready_vm.seal({"bgp-password": "t0p"})
    assert ready_vm.boot().state is State.OK
    section = yaml.safe_load(ready_vm.text("/etc/tf-vsphere/vrouter-agent.yaml"))["overlay"]
    assert (section["interface"], section["vtep"], section["bgp"]["asn"]) == ("underlay", "192.0.2.31", 64512)
    assert [peer["address"] for peer in section["bgp"]["peers"]] == ["192.0.2.100", "192.0.2.101"]
    for peer in section["bgp"]["peers"]:
        assert peer["password_file"] == "/run/credentials/vrouter-agent.service/bgp-password"
    assert ready_vm.text("/etc/credstore/bgp-password") == "t0p"
    assert set(ready_vm.machine.restarted) == {"vrouter-agent.service"}


def test_a_secret_for_metadata_reaches_the_agent(ready_vm: Vm) -> None:
    ready_vm.machine.restarted.clear()
    ready_vm.seal({"metadata-secret": "n0va"})
    assert ready_vm.boot().state is State.OK
    services = yaml.safe_load(ready_vm.text("/etc/tf-vsphere/vrouter-agent.yaml"))["guest_services"]
    assert services == {"metadata_secret_file": "/run/credentials/vrouter-agent.service/metadata-secret"}
    assert set(ready_vm.machine.restarted) == {"vrouter-agent.service"}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("overlay: {bgp: {asn: 1, peers: [192.0.2.1]}, mpls_over_udp: true}\n", "overlay.mpls_over_udp"),
        (
            "overlay: {bgp: {asn: 1, peers: [192.0.2.1]}}\nagent: {overlay: {mpls_over_udp: true}}\n",
            "agent.overlay.mpls_over_udp",
        ),
    ],
)
def test_what_the_kernel_cannot_do_is_named_before_a_daemon_fails_with_it(ready_vm: Vm, change: str, key: str) -> None:
    ready_vm.guestinfo.values["tf.settings"] = SETTINGS + change
    assert ready_vm.boot().state is State.OK
    assert yaml.safe_load(ready_vm.text("/etc/tf-vsphere/vrouter-agent.yaml"))["overlay"]["mpls_over_udp"] is True
    ready_vm.machine.has_mpls = False
    report = ready_vm.boot()
    assert report.state is State.ERROR
    assert f"guestinfo.tf.settings: {key}: the kernel has no MPLS" in str(report)
    assert "allowed: false" in str(report)


def test_without_reflectors_the_agent_has_no_overlay(ready_vm: Vm) -> None:
    assert "overlay" not in yaml.safe_load(ready_vm.text("/etc/tf-vsphere/vrouter-agent.yaml"))


@pytest.mark.parametrize(
    ("change", "key", "allowed"),
    [
        (("dvswitch: dvs-tf", ""), "dvswitch", "required"),
        (("dvswitch: dvs-tf", "dvswitch: dvs-tf\nswitch: x"), "switch", "one of"),
        (("{host: 192.0.2.21,", "{host: 192.0.2.21, port: 99999,"), "esxi.port", "65535"),
        (('"http://198.51.100.11:8082"', "198.51.100.11"), "tf.servers[0]", "http"),
        (("underlay: {", "manager: {vlan: {ranges: [[200, 100]]}}\nunderlay: {"), "manager.vlan.ranges[0]", "4094"),
        (("underlay: {", "agent: {full_period_s: 0}\nunderlay: {"), "agent.full_period_s", ""),
        (("underlay: {", "trunk: {gateway_macs: {first: '00:50:56:20:00:00'}}\nunderlay: {"), "nics.trunk", "one NIC"),
        (("192.0.2.31/24", "192.0.2.31"), "underlay.address", "/24"),
        (("underlay: {", "overlay: {bgp: {asn: 64512}}\nunderlay: {"), "overlay.bgp.peers", "at least one"),
        (("underlay: {", "overlay: {bgp: {asn: 0, peers: [192.0.2.1]}}\nunderlay: {"), "overlay.bgp.asn", "1"),
        (("underlay: {", "overlay: {bgp: {asn: 1, peers: [rr1]}}\nunderlay: {"), "overlay.bgp.peers[0]", "IPv4"),
        (("underlay: {", "agent: {overlay: {stale_s: 1}}\nunderlay: {"), "agent.overlay.interface", "required"),
    ],
)
def test_a_wrong_setting_is_named_and_the_last_right_ones_stay(
    ready_vm: Vm, change: tuple[str, str], key: str, allowed: str
) -> None:
    before = ready_vm.text("/etc/tf-vsphere/vcenter-manager.yaml")
    ready_vm.machine.restarted.clear()
    ready_vm.guestinfo.values["tf.settings"] = SETTINGS.replace(*change)
    report = ready_vm.boot()
    assert report.state is State.ERROR
    assert f"guestinfo.tf.settings: {key}: " in str(report)
    assert allowed in str(report)
    assert ready_vm.guestinfo.values["tf.status"].startswith("error: ")
    assert ready_vm.text("/etc/tf-vsphere/vcenter-manager.yaml") == before
    assert ready_vm.machine.restarted == []


def test_with_a_wrong_setting_elsewhere_the_vm_still_gets_the_address_and_keys_it_was_given(vm: Vm) -> None:
    vm.guestinfo.values["tf.settings"] = SETTINGS.replace("dvswitch: dvs-tf", "")
    assert vm.boot().state is State.ERROR
    assert "198.51.100.31/24" in vm.text("/etc/NetworkManager/system-connections/tf-mgmt.nmconnection")
    assert vm.text("/etc/ssh/authorized_keys.d/tfadmin") == "ssh-ed25519 AAAA me\n"
    assert vm.machine.names["mgmt"] == "ens192"


def test_with_a_wrong_address_the_vm_stays_where_it_was(ready_vm: Vm) -> None:
    before = ready_vm.text("/etc/NetworkManager/system-connections/tf-mgmt.nmconnection")
    ready_vm.guestinfo.values["tf.settings"] = SETTINGS.replace("198.51.100.31/24", "198.51.100.300/24")
    report = ready_vm.boot()
    assert "management.address: no address" in str(report)
    assert str(report).count("management.address") == 1
    assert ready_vm.text("/etc/NetworkManager/system-connections/tf-mgmt.nmconnection") == before


def test_settings_that_cannot_be_read_leave_every_nic_its_name(vm: Vm) -> None:
    chosen = "nics: {management: '00:50:56:9a:00:02', underlay: '00:50:56:9a:00:01'}\n"
    vm.guestinfo.values["tf.settings"] = SETTINGS + chosen
    assert vm.boot().state is State.WAITING
    link = vm.text("/etc/systemd/network/10-tf-mgmt.link")
    assert "00:50:56:9a:00:02" in link
    vm.machine.names.clear()
    vm.guestinfo.values["tf.settings"] = "esxi: {host"
    assert "not valid YAML" in str(vm.boot())
    assert vm.text("/etc/systemd/network/10-tf-mgmt.link") == link
    assert vm.machine.names == {}


def test_a_first_wrong_address_leaves_dhcp(vm: Vm) -> None:
    vm.guestinfo.values["tf.settings"] = SETTINGS.replace("198.51.100.31/24", "198.51.100.300/24")
    assert vm.boot().state is State.ERROR
    assert "method=auto" in vm.text("/etc/NetworkManager/system-connections/tf-mgmt.nmconnection")


def test_a_password_among_the_settings_is_refused_without_being_shown(vm: Vm) -> None:
    vm.guestinfo.values["tf.settings"] = SETTINGS.replace("user: tf-vrouter", "user: tf-vrouter, password: hunter2")
    report = vm.boot()
    assert report.state is State.ERROR
    assert "esxi.password: unknown key" in str(report)
    assert "travel sealed" in str(report)
    assert "hunter2" not in str(report) + str(vm.guestinfo.values["tf.status"])


def test_settings_outlive_the_source_they_came_from(ready_vm: Vm) -> None:
    del ready_vm.guestinfo.values["tf.settings"]
    report = ready_vm.boot()
    assert (report.state, report.lines) == (
        State.OK,
        (f"settings from {ready_vm.root}/etc/tf-vsphere/vrouter-vm.yaml",),
    )


def test_a_config_drive_brings_settings_and_secrets_and_may_then_go(vm: Vm, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    (drive / "secrets").mkdir(parents=True)
    (drive / "vrouter-vm.yaml").write_text(SETTINGS)
    for name, secret in SECRETS.items():
        (drive / "secrets" / name).write_text(f"{secret}\n")
    vm.drive = drive
    report = vm.boot()
    assert report.state is State.OK
    assert "detach and destroy it" in report.one_line
    vm.drive = None
    report = vm.boot()
    assert report.state is State.OK
    assert "detach" not in report.one_line
    assert vm.text("/etc/credstore/esxi-password") == SECRETS["esxi-password"]


def test_a_secret_of_an_unknown_name_on_the_drive_is_refused(vm: Vm, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    (drive / "secrets").mkdir(parents=True)
    (drive / "vrouter-vm.yaml").write_text(SETTINGS)
    (drive / "secrets/esx-password").write_text("hunter2")
    vm.drive = drive
    report = vm.boot()
    assert "unknown secret (value: 'esx-password'); allowed: one of esxi-password" in str(report)
    assert "hunter2" not in str(report)
    assert vm.has("/etc/tf-vsphere/vcenter-manager.yaml")


def test_secrets_sealed_to_another_vm_are_refused_and_the_settings_still_count(vm: Vm, tmp_path: Path) -> None:
    other = Vm(tmp_path / "other")
    other.boot()
    vm.guestinfo.values["tf.settings"] = SETTINGS
    vm.guestinfo.values["tf.sealed"] = seal(SECRETS, public_key=other.guestinfo.values["tf.seal-key"])
    report = vm.boot()
    assert report.state is State.ERROR
    assert "cannot be opened" in str(report)
    assert vm.has("/etc/tf-vsphere/vcenter-manager.yaml")


def test_a_console_password_travels_as_a_hash_only(ready_vm: Vm) -> None:
    ready_vm.seal({"console-password-hash": "$6$salt$hash"})
    assert ready_vm.boot().state is State.OK
    assert ready_vm.machine.hashes == [("tfadmin", "$6$salt$hash")]
    assert not ready_vm.has("/etc/credstore/console-password-hash")
    ready_vm.seal({"console-password-hash": "hunter2"})
    report = ready_vm.boot()
    assert "not a password's hash" in str(report)
    assert "hunter2" not in str(report)
    assert ready_vm.machine.hashes == [("tfadmin", "$6$salt$hash")]


def test_missing_nics_are_an_error_that_keeps_the_vm_reachable(vm: Vm) -> None:
    vm.machine.nics = NICS[1:]
    vm.guestinfo.values["tf.settings"] = SETTINGS
    report = vm.boot()
    assert str(report).count("nics.trunk: no NIC has a gateway's MAC") == 1
    assert "198.51.100.31/24" in vm.text("/etc/NetworkManager/system-connections/tf-mgmt.nmconnection")
    assert vm.machine.names == {"mgmt": "ens192"}
    assert "00:50:56:9a:00:01" in vm.text("/etc/systemd/network/10-tf-mgmt.link")
    assert not vm.has("/etc/systemd/network/10-tf-trunk.link")


def test_a_trunk_whose_mac_was_not_set_yet_is_an_error_until_it_is_and_the_vm_is_reachable_meanwhile(vm: Vm) -> None:
    vm.machine.nics = [replace(NICS[0], mac="00:50:56:9a:00:03"), *NICS[1:]]
    vm.guestinfo.values["tf.settings"] = SETTINGS
    assert vm.boot().state is State.ERROR
    assert vm.machine.names == {"mgmt": "ens192"}
    vm.machine.nics = [NICS[0], replace(NICS[1], name="mgmt"), NICS[2]]
    assert vm.boot().state is State.WAITING
    assert vm.machine.names == {"mgmt": "mgmt", "underlay": "ens224", "trunk": "ens161"}


def test_without_settings_and_without_a_trunk_the_vm_asks_dhcp_on_its_first_nic(vm: Vm) -> None:
    vm.machine.nics = [replace(NICS[0], mac="00:50:56:9a:00:03"), *NICS[1:]]
    assert vm.boot().state is State.ERROR
    assert "method=auto" in vm.text("/etc/NetworkManager/system-connections/tf-mgmt.nmconnection")
    assert vm.machine.names == {"mgmt": "ens192"}


def test_a_vm_without_any_nic_says_so(vm: Vm) -> None:
    vm.machine.nics = []
    vm.guestinfo.values["tf.settings"] = SETTINGS
    assert "nics.trunk" in str(vm.boot())
    assert vm.machine.names == {}


def test_a_step_that_fails_is_reported_and_keeps_no_other_from_being_taken(ready_vm: Vm) -> None:
    ready_vm.machine.restarted.clear()
    ready_vm.machine.is_hostname_refused = True
    ready_vm.guestinfo.values["tf.settings"] = SETTINGS.replace(
        "management: {", "management: {hostname: vr-a, "
    ).replace("192.0.2.21", "192.0.2.22")
    report = ready_vm.boot()
    assert "hostname" in str(report)
    assert ready_vm.machine.restarted == ["vcenter-manager.service"]


def test_only_a_vm_that_was_never_set_up_waits_for_a_drive(ready_vm: Vm) -> None:
    assert ready_vm.machine.waits == 1
    ready_vm.boot()
    assert ready_vm.machine.waits == 1


def test_the_console_shows_the_report_once(vm: Vm) -> None:
    report = vm.boot()
    assert report.show_on_console(root=vm.root)
    assert not report.show_on_console(root=vm.root)
    assert "waiting" in vm.text("/etc/issue.d/50-tf-vsphere.issue")
