"""The life of one vRouter VM, looked at from outside: settings and secrets by guestinfo, work, mistakes, a reboot, the
VM that takes its place, a power cut.

The tests are in order and share the VM: a boot takes most of a minute under emulation. What they measure is written to
the file that the environment variable TF_IMAGE_REPORT names.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pytest

from images.payload import PROJECT
from tests.image.machine import MachineError
from tests.image.site import SECRETS, VlanSite
from tests.image.underlay import REFLECTOR, VTEP

pytestmark = pytest.mark.e2e_image

BOOT_S: Final = 480.0
SETTLE_S: Final = 300.0
MOST_MEMORY_MIB: Final = 350
UNITS: Final = (
    *("vrouter-firstboot", "vrouter-firewall", "vrouter-agent", "vrouter-speaker", "vcenter-manager"),
    *("NetworkManager", "chrony", "ssh"),
)
REMOTE_GUEST: Final = IPv4Address("10.1.1.200")
LABELLED_GUEST: Final = IPv4Address("10.1.1.201")
CAPABILITIES: Final = {"CAP_NET_BIND_SERVICE": 1 << 10, "CAP_NET_ADMIN": 1 << 12, "CAP_NET_RAW": 1 << 13}
STATE: Final = "/var/lib/vrouter-agent"
STATE_FILES: Final = {"generations.json", "interfaces.json", "networks.json", "ports", "routes.json"}


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, float | str]]:
    found: dict[str, float | str] = {}
    yield found
    text = json.dumps(found, indent=2)
    if report := os.environ.get("TF_IMAGE_REPORT"):
        Path(report).write_text(text)


def properties(site: VlanSite, unit: str, *names: str) -> dict[str, str]:
    answer = site.vm.shell(f"systemctl show {unit} -p {','.join(names)}")
    return dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)


def active_since_s(site: VlanSite, unit: str) -> float:
    """Seconds after the kernel's start at which the unit was ready."""
    return int(properties(site, unit, "ActiveEnterTimestampMonotonic")["ActiveEnterTimestampMonotonic"]) / 1e6


def capabilities_of(unit: str) -> set[str]:
    """The capabilities in the file of the unit."""
    text = (PROJECT / f"config/systemd/{unit}.service").read_text()
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)", text, re.MULTILINE)
    return set(line.split())


def used_mib(site: VlanSite) -> float:
    """Memory in use without the page cache."""
    fields = dict(line.split(":") for line in site.vm.shell("cat /proc/meminfo").splitlines())
    mib = {name: int(value.split()[0]) / 1024 for name, value in fields.items()}
    return mib["MemTotal"] - mib["MemFree"] - mib["Buffers"] - mib["Cached"] - mib["SReclaimable"]


def wait_until_active(site: VlanSite, *units: str) -> None:
    """Wait until these units are up; the manager is started anew when its secrets have come."""
    states = f"systemctl is-active {' '.join(units)}"
    site.wait_for(
        lambda: set(site.vm.shell(states, is_checked=False).split()) == {"active"},
        f"active: {', '.join(units)}",
        timeout_s=SETTLE_S,
    )


def look_for_settings(site: VlanSite, status: str) -> None:
    """Do now what the timer does within a minute, until it comes to `status`: an older run may be under way."""
    site.vm.shell("systemctl start vrouter-settings", is_checked=False)
    assert site.guestinfo.wait_for("tf.status", status, timeout_s=SETTLE_S), site.guestinfo.get("tf.status")


def test_a_new_vm_says_in_guestinfo_what_it_waits_for_and_shows_its_key(
    site: VlanSite, measured: dict[str, float | str]
) -> None:
    site.make_vm("first", guestinfo=site.guestinfo)
    site.give_settings()
    began = time.monotonic()
    site.vm.power_on()
    assert site.guestinfo.wait_for("tf.status", "waiting: secrets: esxi-password, vcenter-password", timeout_s=BOOT_S)
    measured["first boot: power on to the key in guestinfo, wall s"] = round(time.monotonic() - began, 1)
    assert site.guestinfo.get("tf.seal-key").startswith("tf-seal-key-1:")


def test_sealed_secrets_are_opened_and_cleared_within_two_minutes_though_nobody_logs_in(site: VlanSite) -> None:
    site.guestinfo.set("tf.sealed", site.seal(*SECRETS))
    assert site.guestinfo.wait_for("tf.sealed", "", timeout_s=120 + BOOT_S)
    assert site.guestinfo.wait_for("tf.status", "ok: settings from guestinfo.tf.settings", timeout_s=60)


def test_secrets_are_credentials_which_only_their_daemon_sees(site: VlanSite) -> None:
    site.vm.wait_for_shell(timeout_s=SETTLE_S)
    wait_until_active(site, "vrouter-agent", "vcenter-manager")
    names = sorted(SECRETS)
    assert site.vm.shell("ls /etc/credstore").split() == names
    modes = site.vm.shell("stat -c %a:%U /etc/credstore /etc/credstore/*").split()
    assert modes == ["700:root", *["600:root"] * len(names)]
    shown = {
        unit: site.vm.shell(f"ls /run/credentials/{unit}.service").split()
        for unit in ("vrouter-agent", "vcenter-manager")
    }
    assert shown["vrouter-agent"] == ["bgp-password", "tf-token"]
    assert shown["vcenter-manager"] == ["esxi-password", "smbios-uuid", "tf-token", "vcenter-password"]


def test_every_unit_is_up_and_in_order(site: VlanSite, measured: dict[str, float | str]) -> None:
    site.wait_for(
        lambda: site.vm.shell("systemctl is-system-running", is_checked=False).strip() == "running",
        "the boot to be over",
        timeout_s=SETTLE_S,
    )
    wait_until_active(site, *UNITS)
    assert site.vm.shell("systemctl --failed --no-legend").strip() == ""
    assert active_since_s(site, "vrouter-firstboot") < active_since_s(site, "NetworkManager")
    assert active_since_s(site, "vrouter-agent") < active_since_s(site, "vcenter-manager")
    for unit in ("vrouter-agent", "vcenter-manager"):
        shown = properties(site, unit, "Type", "StatusText", "NRestarts", "WatchdogUSec")
        assert shown["Type"] == "notify"
        assert shown["StatusText"]


def test_memory_after_boot_with_no_guests_is_small(site: VlanSite, measured: dict[str, float | str]) -> None:
    used = used_mib(site)
    measured["no guests: memory in use without page cache, MiB"] = round(used)
    for unit in ("vrouter-agent", "vrouter-speaker", "vcenter-manager"):
        measured[f"no guests: {unit}, MiB"] = round(
            int(properties(site, unit, "MemoryCurrent")["MemoryCurrent"]) / 2**20
        )
    assert used < MOST_MEMORY_MIB


def test_guests_that_come_are_served_by_themselves(site: VlanSite, measured: dict[str, float | str]) -> None:
    site.create_network("blue", "10.1.1.0/24")
    site.create_network("red", "10.1.1.0/24")
    began = time.monotonic()
    site.create_guests({"blue-1": "blue", "blue-2": "blue", "red-1": "red"})
    site.wait_for_guests(["blue-1", "blue-2", "red-1"], timeout_s=SETTLE_S)
    assert site.can_ping("blue-1", "blue-2", timeout_s=30)
    measured["three guests: started to forwarding, wall s"] = round(time.monotonic() - began, 1)


def test_a_packet_was_routed_once_and_each_guest_has_its_own_vlan(site: VlanSite) -> None:
    assert set(site.guests["blue-1"].ttls) == {63}
    assert len({guest.vlan for guest in site.guests.values()}) == 3


def test_the_other_network_is_not_reached_though_it_has_the_same_addresses(site: VlanSite) -> None:
    others = {guest.address for guest in site.guests.values() if guest.name != "red-1"}
    assert not any(
        site.trunk.ping(site.guests["red-1"], address, timeout_s=3)
        for address in others - {site.guests["red-1"].address}
    )


def test_the_speaker_tells_the_reflector_where_the_guests_are(site: VlanSite) -> None:
    guest = site.guests["blue-2"]  # no guest of the other network has its address
    assert guest.address != site.guests["red-1"].address
    route = site.underlay.wait_for_route(guest.address, timeout_s=60)
    assert route is not None, site.underlay.log.read_text() + site.vm.last_words()
    assert route.next_hop == VTEP
    assert route.prefix.prefixlen == 32


def test_a_guest_of_another_host_is_reached_through_the_tunnel(site: VlanSite) -> None:
    route = site.underlay.wait_for_route(site.guests["blue-2"].address, timeout_s=1)
    assert route is not None
    site.underlay.add_guest(REMOTE_GUEST, beside=route)
    assert site.trunk.ping(site.guests["blue-2"], REMOTE_GUEST, timeout_s=30), site.vm.last_words()
    assert not site.trunk.ping(site.guests["red-1"], REMOTE_GUEST, timeout_s=2)


def test_a_guest_of_tfs_ordinary_vrouters_is_reached_by_mpls_over_udp_though_the_agent_is_confined(
    site: VlanSite,
) -> None:
    site.share_networks()
    route = site.underlay.wait_for_labelled_route(site.guests["blue-2"].address, timeout_s=SETTLE_S)
    assert route is not None, site.vm.last_words()
    assert route.next_hop == VTEP
    site.underlay.add_labelled_guest(LABELLED_GUEST, beside=route)
    assert site.trunk.ping(site.guests["blue-2"], LABELLED_GUEST, timeout_s=30), site.vm.last_words()
    assert not site.trunk.ping(site.guests["red-1"], LABELLED_GUEST, timeout_s=2)
    assert site.trunk.ping(site.guests["blue-2"], REMOTE_GUEST, timeout_s=10)


def test_only_the_agent_may_open_the_speakers_api_and_no_port_is_open_for_bgp(site: VlanSite) -> None:
    shown = site.vm.shell("stat -c %a:%U:%G /run/vrouter-speaker /run/vrouter-speaker/api.sock").split()
    assert shown == ["750:vrouter-speaker:vrouter-speaker", "770:vrouter-speaker:vrouter-speaker"]
    pid = properties(site, "vrouter-agent", "MainPID")["MainPID"]
    group = site.vm.shell("getent group vrouter-speaker").split(":")
    assert group[3].strip() == ""
    assert group[2] in site.vm.shell(f"grep ^Groups: /proc/{pid}/status").split()
    manager = "runuser -u vcenter-manager -- test -w /run/vrouter-speaker/api.sock && echo open || echo closed"
    assert site.vm.shell(manager).strip() == "closed"
    assert "gobgpd" not in site.vm.shell("ss -H -lntup")


def test_a_speaker_that_is_killed_comes_back_and_the_tunnels_stay(site: VlanSite) -> None:
    before = properties(site, "vrouter-speaker", "MainPID")["MainPID"]
    site.vm.shell("systemctl kill --signal=KILL vrouter-speaker")
    assert site.trunk.ping(site.guests["blue-2"], REMOTE_GUEST, timeout_s=1)
    site.wait_for(
        lambda: properties(site, "vrouter-speaker", "MainPID")["MainPID"] not in ("0", before),
        "the speaker to be started anew",
        timeout_s=60,
    )
    connected = f"ss -Htn state established dst {REFLECTOR}"
    site.wait_for(lambda: bool(site.vm.shell(connected).strip()), "its session", timeout_s=60)
    assert site.trunk.ping(site.guests["blue-2"], REMOTE_GUEST, timeout_s=1)


def test_a_speaker_that_is_restarted_has_not_failed(site: VlanSite) -> None:
    site.vm.shell("systemctl restart vrouter-speaker")
    assert properties(site, "vrouter-speaker", "ActiveState", "Result") == {
        "ActiveState": "active", "Result": "success",
    }  # fmt: skip
    log = site.vm.shell("journalctl -u vrouter-speaker --no-pager | tail -n 20")
    assert "Failed with result" not in log.rpartition("Stopping")[2]


def test_the_nics_have_the_names_of_their_roles_and_the_trunk_no_address(site: VlanSite) -> None:
    links = {link["ifname"]: link for link in json.loads(site.vm.shell("ip -j addr show"))}
    assert links["trunk"]["address"] == "00:50:56:00:00:01"
    assert links["mgmt"]["address"] == "52:54:00:00:00:01"
    assert links["underlay"]["address"] == "52:54:00:00:00:02"
    assert links["underlay"]["mtu"] == 1600
    addresses = {
        name: [entry["local"] for entry in link["addr_info"] if entry["scope"] == "global"]
        for name, link in links.items()
    }
    assert addresses["trunk"] == []
    assert addresses["mgmt"] == ["198.51.100.31"]
    assert addresses["underlay"] == ["192.0.2.31"]
    assert site.vm.shell("hostname").strip() == "vrouter-a"


def test_what_the_agent_makes_is_left_alone_by_networkmanager_udev_and_sysctl(site: VlanSite) -> None:
    states = dict(line.split(":")[:2] for line in site.vm.shell("nmcli -t -f DEVICE,STATE device").splitlines())
    assert {name: states[name] for name in ("mgmt", "underlay")} == {"mgmt": "connected", "underlay": "connected"}
    vifs = [name for name in states if name.startswith("trunk")]
    assert len(vifs) == 4
    kinds = [
        link["linkinfo"]["info_kind"] for link in json.loads(site.vm.shell("ip -d -j link show")) if "linkinfo" in link
    ]
    assert {"vlan", "vrf", "vxlan", "veth", "ipip"} <= set(kinds)
    others = {name: state for name, state in states.items() if name not in ("lo", "mgmt", "underlay")}
    assert set(others.values()) == {"unmanaged"}, others
    # Whoever changed a setting of a device after the agent would have it set that again.
    entries = site.vm.shell("journalctl -u vrouter-agent -b --no-pager -o json --output-fields=TF_WHAT").splitlines()
    done = [what for entry in entries if (what := json.loads(entry).get("TF_WHAT"))]
    assert len(done) > len(vifs)
    assert [what for what in done if re.fullmatch(r"(trunk\.\d+|[vxlim][0-9a-f]+): \d+ settings", what)] == []
    for vif in vifs:
        macs = site.vm.shell(f"cat /sys/class/net/{vif}/address").strip()
        assert macs == "00:50:56:00:00:01"
    values = site.vm.shell(
        "sysctl -n net.ipv4.conf.all.rp_filter net.ipv4.tcp_l3mdev_accept net.ipv4.raw_l3mdev_accept"
    )
    assert values.split() == ["0", "0", "0"]
    filters = site.vm.shell("grep -H . /proc/sys/net/ipv4/conf/trunk.*/rp_filter")
    assert {line.rpartition(":")[2] for line in filters.splitlines()} == {"1"}


def test_no_daemon_is_root_and_none_has_more_capabilities_than_its_unit_says(site: VlanSite) -> None:
    for unit in ("vrouter-agent", "vrouter-speaker", "vcenter-manager"):
        pid = properties(site, unit, "MainPID")["MainPID"]
        status = site.vm.shell(f"cat /proc/{pid}/status")
        effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        user = re.search(r"^Uid:\s*(\d+)", status, re.MULTILINE)
        assert effective is not None
        assert user is not None
        assert {name for name, bit in CAPABILITIES.items() if int(effective[1], 16) & bit} == capabilities_of(unit)
        assert int(effective[1], 16) & ~sum(CAPABILITIES.values()) == 0
        assert int(user[1]) > 0


def test_no_secret_is_in_a_log_a_command_line_a_file_of_settings_or_the_vms_configuration(site: VlanSite) -> None:
    shown = {
        "journal": site.vm.shell("journalctl --no-pager -o export"),
        "command lines": site.vm.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", is_checked=False),
        "environments": site.vm.shell("cat /proc/[0-9]*/environ | tr '\\0' ' '", is_checked=False),
        "units": site.vm.shell("systemctl show '*.service'"),
        "console": site.vm.console.read_text(errors="replace"),
        "VM configuration": " ".join(site.vm.command),
        "guestinfo, whatever it ever was": repr(site.guestinfo.history),
        "files": site.vm.shell("grep -rl -e 'only[-]here' /etc /var /run /tmp --exclude-dir=credstore || true"),
    }
    for place, text in shown.items():
        assert not [name for name, secret in SECRETS.items() if secret in text], place
    files = [line for line in shown["files"].splitlines() if not line.startswith("/run/credentials/")]
    assert files == []


def test_what_was_sealed_is_of_no_use_to_who_copied_it(site: VlanSite) -> None:
    sealed = [value for key, value in site.guestinfo.history if key == "tf.sealed" and value]
    assert len(sealed) == 1
    assert site.guestinfo.get("tf.sealed") == ""
    assert site.vm.shell("stat -c %a:%U /var/lib/tf-vsphere/seal.key").strip() == "600:root"
    private_key = site.vm.shell("cat /var/lib/tf-vsphere/seal.key").strip()
    assert not [key for key, value in site.guestinfo.history if private_key in value]


def test_memory_with_three_guests_is_small(site: VlanSite, measured: dict[str, float | str]) -> None:
    used = used_mib(site)
    measured["three guests: memory in use without page cache, MiB"] = round(used)
    assert used < MOST_MEMORY_MIB


def test_only_ssh_and_pings_reach_the_vm_itself(site: VlanSite) -> None:
    # A socket of a service for guests is bound to their VRF, which `ss` shows behind a percent sign.
    listening = [address for address in site.vm.shell("ss -H -ltn | awk '{print $4}'").split() if "%v" not in address]
    assert {address.rpartition(":")[0] for address in listening} <= {"127.0.0.1", "0.0.0.0", "[::]", "[::1]"}
    off_loopback = {a.rpartition(":")[2] for a in listening if not a.startswith(("127.0.0.1", "[::1]"))}
    assert off_loopback == {"22"}
    assert "tcp dport 22 accept" in site.vm.shell("nft list table inet tf-host")


def test_a_wrong_setting_is_named_in_guestinfo_and_on_the_console_and_the_vm_stays_reachable_and_at_work(
    site: VlanSite,
) -> None:
    site.give_settings(dvswitch=["dvs-tf"])
    complaint = "guestinfo.tf.settings: dvswitch: wrong type"
    look_for_settings(site, f"error: {complaint}")
    assert "allowed: `str`" in site.guestinfo.get("tf.status")
    shown_anew = "test /run/agetty.reload -nt /etc/issue.d/50-tf-vsphere.issue && cat /etc/issue.d/50-tf-vsphere.issue"
    site.wait_for(
        lambda: (
            complaint in site.vm.shell(shown_anew, is_checked=False)
            and complaint in site.vm.console.read_text(errors="replace")
        ),
        "the complaint on the console",
        timeout_s=60,
    )
    assert properties(site, "vcenter-manager", "ActiveState")["ActiveState"] == "active"
    assert site.can_ping("blue-1", "blue-2", timeout_s=10)


def test_a_changed_setting_restarts_whom_it_concerns_while_packets_pass(site: VlanSite) -> None:
    pids = {unit: properties(site, unit, "MainPID")["MainPID"] for unit in ("vrouter-agent", "vcenter-manager")}
    site.settings["manager"] = {"vlan": {"ranges": [[101, 500]]}}
    site.give_settings()
    look_for_settings(site, "ok: settings from guestinfo.tf.settings")
    assert "500" in site.vm.shell("cat /etc/tf-vsphere/vcenter-manager.yaml")
    assert site.can_ping("blue-1", "blue-2", timeout_s=10)
    wait_until_active(site, "vcenter-manager")
    assert properties(site, "vrouter-agent", "MainPID")["MainPID"] == pids["vrouter-agent"]
    assert properties(site, "vcenter-manager", "MainPID")["MainPID"] != pids["vcenter-manager"]


def test_after_a_reboot_it_forwards_though_tf_vcenter_and_the_esxi_hang(
    site: VlanSite, measured: dict[str, float | str]
) -> None:
    before = site.vm.shell("cat /proc/sys/kernel/random/boot_id").strip()
    began = time.monotonic()
    with site.hung():
        site.vm.shell("systemd-run --quiet --on-active=1 systemctl reboot")
        site.vm.hang_up()
        last_word = "reboot: Restarting system"  # of the kernel, on the console
        site.wait_for(lambda: last_word in site.vm.console.read_text(errors="replace"), "the VM to go", timeout_s=240)
        assert site.can_ping("blue-1", "blue-2", timeout_s=BOOT_S)
        measured["reboot, TF and vCenter hung: command to forwarding, wall s"] = round(time.monotonic() - began, 1)
        site.vm.wait_for_shell(timeout_s=SETTLE_S)
        measured["reboot, TF and vCenter hung: agent ready, guest s"] = active_since_s(site, "vrouter-agent")
        assert properties(site, "vcenter-manager", "ActiveState")["ActiveState"] != "active"
    assert site.vm.shell("cat /proc/sys/kernel/random/boot_id").strip() != before
    site.wait_for(
        lambda: properties(site, "vcenter-manager", "ActiveState")["ActiveState"] == "active",
        "the manager, now that they answer",
        timeout_s=BOOT_S,
    )


def test_the_critical_chain_of_forwarding_waits_for_no_network(
    site: VlanSite, measured: dict[str, float | str]
) -> None:
    site.wait_for(
        lambda: site.vm.shell("systemctl is-system-running", is_checked=False).strip() == "running",
        "the boot to be over",
        timeout_s=SETTLE_S,
    )
    chain = site.vm.shell("systemd-analyze critical-chain vrouter-agent.service --no-pager")
    measured["reboot: critical chain"] = chain
    for unit in ("network-online.target", "NetworkManager.service", "vrouter-speaker.service", "chrony.service"):
        assert unit not in chain
    assert "vrouter-firstboot.service" in chain or "vrouter-firewall.service" in chain


def test_a_vm_that_takes_the_place_of_another_goes_on_with_its_data(
    site: VlanSite, measured: dict[str, float | str]
) -> None:
    site.wait_for(
        lambda: set(site.vm.shell(f"ls {STATE}").split()) >= STATE_FILES,
        "the agent's files",
        timeout_s=60,
    )
    state = site.vm.pipe(f"tar -C {STATE} -c .", b"")
    site.make_vm("second")
    site.underlay.stop_reflector()
    site.vm.is_isolated = True  # neither TF nor vCenter can be reached: all it knows is what was carried over
    site.vm.power_on()
    site.vm.wait_for_shell(timeout_s=BOOT_S)
    assert not site.can_ping("blue-1", "blue-2", timeout_s=1)
    site.vm.shell("systemctl stop vrouter-agent")
    site.vm.pipe(f"tar -C {STATE} -x", state)
    began = time.monotonic()
    site.vm.shell("systemctl start vrouter-agent", timeout_s=SETTLE_S)
    assert site.can_ping("blue-1", "blue-2", timeout_s=30)
    measured["replaced: agent started with the data to forwarding, wall s"] = round(time.monotonic() - began, 1)
    assert site.trunk.ping(site.guests["blue-2"], REMOTE_GUEST, timeout_s=10)
    assert set(site.vm.shell(f"stat -c %U {STATE} {STATE}/ports {STATE}/ports/*").split()) == {"vrouter-agent"}


def test_the_config_drive_may_be_detached_and_settings_in_the_vm_itself_be_changed(site: VlanSite) -> None:
    kept = "/etc/tf-vsphere/vrouter-vm.yaml"
    site.vm.detach_config_drive()
    site.vm.shell(f"cp {kept} /root/right.yaml && sed -i 's/^dvswitch:.*/dvswitch: [dvs-tf]/' {kept}")
    site.vm.shell("systemctl restart vrouter-firstboot", is_checked=False)
    assert f"{kept}: dvswitch: wrong type" in site.vm.shell("cat /etc/issue.d/50-tf-vsphere.issue")
    site.vm.shell(f"cp /root/right.yaml {kept} && systemctl restart vrouter-firstboot")
    assert f"ok: settings from {kept}" in site.vm.shell("cat /etc/issue.d/50-tf-vsphere.issue")
    assert site.can_ping("blue-1", "blue-2", timeout_s=10)


def test_after_a_power_cut_it_forwards_without_vcenter_tf_and_reflectors(
    site: VlanSite, measured: dict[str, float | str]
) -> None:
    site.vm.cut_power()
    assert not site.can_ping("blue-1", "blue-2", timeout_s=1)
    began = time.monotonic()
    site.vm.power_on()
    assert site.can_ping("blue-1", "blue-2", timeout_s=BOOT_S)
    measured["power cut: power on to forwarding, wall s"] = round(time.monotonic() - began, 1)
    assert site.trunk.ping(site.guests["blue-2"], REMOTE_GUEST, timeout_s=10)
    assert not site.can_ping("red-1", "blue-2", timeout_s=2)
    site.vm.wait_for_shell(timeout_s=SETTLE_S)
    measured["power cut: agent ready, guest s"] = active_since_s(site, "vrouter-agent")
    with pytest.raises(MachineError):
        site.vm.shell("timeout 5 bash -c 'exec 3<>/dev/tcp/198.51.100.2/22'")
