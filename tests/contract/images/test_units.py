"""The units as systemd itself reads them, and what they promise. Skipped where systemd is not installed."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vrouter_vm.settings import BgpSettings, PeerSection

UNITS = Path(__file__).parents[3] / "config" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
DAEMONS = ["tf-controller.service", "vcenter-manager.service", "vcenter-plugin.service", "vrouter-agent.service"]
SPEAKER, REFLECTOR = "vrouter-speaker.service", "route-reflector.service"
MOST_EXPOSED = 4.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


class Unit:
    """One unit file: each setting with all its values, in order."""

    def __init__(self, name: str) -> None:
        self.settings: dict[tuple[str, str], list[str]] = {}
        section = ""
        for line in (UNITS / name).read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self.settings.setdefault((section, key), []).append(value)

    def values(self, section: str, key: str) -> list[str]:
        return [word for value in self.settings.get((section, key), []) for word in value.split()]


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "LC_ALL": "C.UTF-8"},
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units with programs that are there, so that `verify` sees everything else."""
    folder = tmp_path_factory.mktemp("units")
    for path in [*UNITS.glob("*.service"), *UNITS.glob("*.timer")]:
        text = re.sub(r"/opt/tf-vsphere/bin/\S+|/usr/sbin/nft|/bin/rm", "/bin/true", path.read_text())
        (folder / path.name).write_text(text)
    return folder


@needs_systemd
@pytest.mark.parametrize("name", [*SERVICES, "vrouter-settings.timer"])
def test_systemd_has_nothing_to_say_against_the_unit(installed: Path, name: str) -> None:
    done = analyze("verify", "--man=no", str(installed / name), folder=installed)
    mine = [line for line in done.stderr.splitlines() if any(service.split(".")[0] in line for service in SERVICES)]
    assert (done.returncode, mine) == (0, []), done.stderr


@needs_systemd
def test_a_unit_with_a_mistake_does_not_pass(installed: Path, tmp_path: Path) -> None:
    text = (installed / "vrouter-agent.service").read_text().replace("WatchdogSec=60", "WatchdogSecs=60")
    (tmp_path / "vrouter-agent.service").write_text(text)
    done = analyze("verify", "--man=no", str(tmp_path / "vrouter-agent.service"), folder=tmp_path)
    assert "WatchdogSecs" in done.stderr


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_the_exposure_of_every_service_but_the_agents_is_under_four(installed: Path, name: str) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(installed / name), folder=installed)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) < MOST_EXPOSED or name == "vrouter-agent.service"


def test_the_agent_has_the_networks_capabilities_and_the_other_daemons_have_none() -> None:
    for name in [*DAEMONS, SPEAKER]:
        unit = Unit(name)
        expected = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"] if name == "vrouter-agent.service" else []
        assert unit.settings["Service", "CapabilityBoundingSet"] == [" ".join(expected)]
        assert unit.values("Service", "AmbientCapabilities") == expected


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_says_when_it_is_ready_is_watched_and_always_comes_back(name: str) -> None:
    unit = Unit(name)
    assert unit.values("Service", "Type") == ["notify"]
    assert 0 < int(unit.values("Service", "WatchdogSec")[0]) <= 60
    assert unit.values("Service", "Restart") == ["always"]
    assert unit.values("Unit", "StartLimitIntervalSec") == ["0"]
    assert int(unit.values("Service", "RestartSec")[0]) >= 2


@pytest.mark.parametrize("name", [*DAEMONS, SPEAKER, REFLECTOR])
def test_a_daemon_runs_as_an_account_of_its_own_that_is_made_for_it(name: str) -> None:
    accounts = re.findall(r"^u (\S+)", (UNITS / "tf-vsphere-sysusers.conf").read_text(), re.MULTILINE)
    assert Unit(name).values("Service", "User") == [name.removesuffix(".service")]
    assert name.removesuffix(".service") in accounts


def test_the_image_enables_the_units_of_a_vrouter_vm() -> None:
    provision = (UNITS.parents[1] / "images/provision").read_text().replace("\\\n", " ")
    enabled = set(re.findall(r"[\w-]+\.service", " ".join(re.findall(r"systemctl --quiet enable (.*)", provision))))
    mine = {name for name in SERVICES if Unit(name).settings.get(("Install", "WantedBy"))}
    assert mine - enabled == {REFLECTOR, "tf-controller.service", "vcenter-plugin.service"}


def test_nothing_waits_for_the_network_to_be_online() -> None:
    for name in SERVICES:
        unit = Unit(name)
        waits = [*unit.values("Unit", "After"), *unit.values("Unit", "Requires"), *unit.values("Unit", "Wants")]
        assert "network-online.target" not in waits


def test_settings_come_before_the_network_and_the_agent_before_the_manager() -> None:
    assert "network-pre.target" in Unit("vrouter-firstboot.service").values("Unit", "Before")
    assert "vrouter-firstboot.service" in Unit("vrouter-agent.service").values("Unit", "After")
    assert "vrouter-agent.service" in Unit("vcenter-manager.service").values("Unit", "After")
    # The agent forwards without manager, vCenter and TF.
    agent = Unit("vrouter-agent.service")
    assert not [name for name in agent.values("Unit", "After") if name in ("vcenter-manager.service", "network.target")]


def test_the_agent_and_the_speaker_do_not_wait_for_each_other() -> None:
    agent, speaker = Unit("vrouter-agent.service"), Unit(SPEAKER)
    assert SPEAKER in agent.values("Unit", "Wants")
    for unit, other in ((agent, SPEAKER), (speaker, "vrouter-agent.service")):
        for key in ("After", "Before", "Requires", "BindsTo", "PartOf"):
            assert other not in unit.values("Unit", key)
    assert speaker.values("Unit", "After") == []


def test_the_speakers_api_is_a_socket_for_the_agent_alone_and_nothing_else_listens() -> None:
    speaker = Unit(SPEAKER)
    command = speaker.values("Service", "ExecStart")
    socket = command[command.index("--api-hosts") + 1].removeprefix("unix://")
    assert socket == BgpSettings(asn=1, peers=(PeerSection(address="192.0.2.1"),)).socket
    assert speaker.values("Service", "ExecStartPre") == ["/bin/rm", "-f", socket]
    assert {"--pprof-disable", "--metrics-path=", "--sdnotify"} < set(command)
    assert not [word for word in command if word.startswith(("-f", "--config", "-r", "--graceful-restart"))]
    assert Path(socket).parent == Path("/run") / speaker.values("Service", "RuntimeDirectory")[0]
    assert speaker.values("Service", "RuntimeDirectoryMode") == ["0750"]
    assert int(speaker.values("Service", "UMask")[0], 8) & 0o007 == 0o007
    with_its_group = [
        name for name in SERVICES if "vrouter-speaker" in Unit(name).values("Service", "SupplementaryGroups")
    ]
    assert with_its_group == ["vrouter-agent.service"]


@pytest.mark.parametrize("name", [SPEAKER, REFLECTOR])
def test_a_speaker_that_is_stopped_leaves_its_routes_with_the_peers_and_comes_back(name: str) -> None:
    speaker = Unit(name)
    assert speaker.values("Service", "KillSignal") == ["SIGKILL"]
    assert speaker.values("Service", "SuccessExitStatus") == ["SIGKILL"]
    assert speaker.values("Service", "Restart") == ["always"]
    assert speaker.values("Unit", "StartLimitIntervalSec") == ["0"]


def test_a_reflector_listens_for_bgp_and_for_nothing_else_and_its_file_is_roots_alone() -> None:
    reflector = Unit(REFLECTOR)
    command = reflector.values("Service", "ExecStart")
    socket = command[command.index("--api-hosts") + 1].removeprefix("unix://")
    assert reflector.values("Service", "ExecStartPre") == ["/bin/rm", "-f", socket]
    assert {"--pprof-disable", "--metrics-path=", "--sdnotify"} < set(command)
    assert not {"-r", "--graceful-restart"} & set(command)
    assert reflector.values("Service", "RuntimeDirectoryMode") == ["0700"]
    assert reflector.values("Service", "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    name, _, path = reflector.values("Service", "LoadCredential")[0].partition(":")
    assert command[command.index("-f") + 1] == "${CREDENTIALS_DIRECTORY}/" + name
    assert reflector.values("Unit", "ConditionPathExists") == [path]


def test_only_the_daemon_that_logs_in_gets_a_password() -> None:
    agent = Unit("vrouter-agent.service").values("Service", "LoadCredential")
    assert not {"esxi-password", "vcenter-password"} & set(agent)
    manager = Unit("vcenter-manager.service").values("Service", "LoadCredential")
    assert {"esxi-password", "vcenter-password", "tf-token"} < set(manager)


def test_the_sessions_password_goes_to_the_agent_which_tells_the_speaker() -> None:
    names = [name for name in SERVICES if "bgp-password" in Unit(name).values("Service", "LoadCredential")]
    assert names == ["vrouter-agent.service"]


def test_no_unit_has_a_secret_or_passes_one_by_environment() -> None:
    for name in SERVICES:
        assert not [key for _, key in Unit(name).settings if key in ("Environment", "EnvironmentFile", "SetCredential")]


def test_both_runs_of_first_boot_are_confined_alike() -> None:
    first, later = Unit("vrouter-firstboot.service"), Unit("vrouter-settings.service")
    for (section, key), value in first.settings.items():
        if section == "Service" and key != "RemainAfterExit":
            assert later.settings[section, key] == value


def test_the_packages_scripts_are_where_the_units_look_for_them() -> None:
    project = configparser.ConfigParser(interpolation=None)
    text = (UNITS.parents[1] / "pyproject.toml").read_text()
    project.read_string("[project.scripts]" + text.partition("[project.scripts]")[2].partition("\n[")[0])
    for name in [*DAEMONS, "vrouter-firstboot.service"]:
        program = Path(Unit(name).values("Service", "ExecStart")[0])
        assert program.parent == Path("/opt/tf-vsphere/bin")
        assert program.name in project["project.scripts"]
