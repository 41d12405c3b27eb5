"""The life of one vRouter VM, looked at from outside: first boot, work, a wrong setting, a reboot, a power cut.

The tests are in order and share one VM: a boot takes most of a minute under emulation. What they measure is written to
the file that the environment variable TF_IMAGE_REPORT names.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.machine import MachineError
from tests.image.site import SECRETS, VlanSite

pytestmark = pytest.mark.e2e_image

BOOT_S = 480.0
SETTLE_S = 300.0
MOST_MEMORY_MIB = 350
UNITS = (
    "vrouter-firstboot",
    "vrouter-firewall",
    "vrouter-agent",
    "vrouter-speaker",
    "vcenter-manager",
    "NetworkManager",
    "chrony",
    "ssh",
)


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


def test_from_power_on_to_forwarding_nobody_logs_in(site: VlanSite, measured: dict[str, float | str]) -> None:
    began = time.monotonic()
    site.vm.power_on()
    site.create_network("blue", "10.1.1.0/24")
    site.create_network("red", "10.1.1.0/24")
    site.create_guests({"blue-1": "blue", "blue-2": "blue", "red-1": "red"})
    site.wait_for_guests(["blue-1", "blue-2", "red-1"], timeout_s=BOOT_S)
    assert site.can_ping("blue-1", "blue-2", timeout_s=30)
    measured["first boot: power on to forwarding, wall s"] = round(time.monotonic() - began, 1)


def test_a_packet_was_routed_once_and_each_guest_has_its_own_vlan(site: VlanSite) -> None:
    assert set(site.guests["blue-1"].ttls) == {63}
    assert len({guest.vlan for guest in site.guests.values()}) == 3


def test_the_other_network_is_not_reached_though_it_has_the_same_addresses(site: VlanSite) -> None:
    others = {guest.address for guest in site.guests.values() if guest.name != "red-1"}
    assert not any(
        site.trunk.ping(site.guests["red-1"], address, timeout_s=3)
        for address in others - {site.guests["red-1"].address}
    )


def test_every_unit_is_up_and_in_order(site: VlanSite, measured: dict[str, float | str]) -> None:
    site.vm.wait_for_shell(timeout_s=SETTLE_S)
    for unit in UNITS:
        assert properties(site, unit, "ActiveState")["ActiveState"] == "active", site.vm.shell(
            f"systemctl status {unit}", is_checked=False
        )
    assert site.vm.shell("systemctl --failed --no-legend").strip() == ""
    assert active_since_s(site, "vrouter-firstboot") < active_since_s(site, "NetworkManager")
    assert active_since_s(site, "vrouter-agent") < active_since_s(site, "vcenter-manager")
    for unit in ("vrouter-agent", "vcenter-manager"):
        shown = properties(site, unit, "Type", "StatusText", "NRestarts", "WatchdogUSec")
        assert shown["Type"] == "notify"
        assert shown["StatusText"]
        measured[f"first boot: {unit} ready, guest s"] = active_since_s(site, unit)


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
    assert {states[name] for name in vifs} == {"unmanaged"}
    for vif in vifs:
        macs = site.vm.shell(f"cat /sys/class/net/{vif}/address").strip()
        assert macs == "00:50:56:00:00:01"
    values = site.vm.shell(
        "sysctl -n net.ipv4.conf.all.rp_filter net.ipv4.tcp_l3mdev_accept net.ipv4.raw_l3mdev_accept"
    )
    assert values.split() == ["0", "0", "0"]
    filters = site.vm.shell("grep -H . /proc/sys/net/ipv4/conf/trunk.*/rp_filter")
    assert {line.rpartition(":")[2] for line in filters.splitlines()} == {"1"}


def test_the_agent_has_one_capability_and_no_daemon_is_root(site: VlanSite) -> None:
    for unit, capabilities in (("vrouter-agent", 1 << 12), ("vrouter-speaker", 0), ("vcenter-manager", 0)):
        pid = properties(site, unit, "MainPID")["MainPID"]
        status = site.vm.shell(f"cat /proc/{pid}/status")
        effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        user = re.search(r"^Uid:\s*(\d+)", status, re.MULTILINE)
        assert effective is not None
        assert user is not None
        assert int(effective[1], 16) == capabilities
        assert int(user[1]) > 0


def test_no_secret_is_in_a_log_a_command_line_a_file_of_settings_or_the_vms_configuration(site: VlanSite) -> None:
    shown = {
        "journal": site.vm.shell("journalctl --no-pager -o export"),
        "command lines": site.vm.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", is_checked=False),
        "environments": site.vm.shell("cat /proc/[0-9]*/environ | tr '\\0' ' '", is_checked=False),
        "console": site.vm.console.read_text(errors="replace"),
        "VM configuration": " ".join(site.vm.command),
        "files": site.vm.shell("grep -rl -e 'only[-]here' /etc /var /run /tmp --exclude-dir=credstore || true"),
    }
    for place, text in shown.items():
        assert not [name for name, secret in SECRETS.items() if secret in text], place
    files = [line for line in shown["files"].splitlines() if not line.startswith("/run/credentials/")]
    assert files == []
    assert site.vm.shell("stat -c %a /etc/credstore /etc/credstore/esxi-password").split() == ["700", "600"]


def test_memory_with_three_guests_is_small(site: VlanSite, measured: dict[str, float | str]) -> None:
    fields = dict(line.split(":") for line in site.vm.shell("cat /proc/meminfo").splitlines())
    mib = {name: int(value.split()[0]) / 1024 for name, value in fields.items()}
    used = mib["MemTotal"] - mib["MemFree"] - mib["Buffers"] - mib["Cached"] - mib["SReclaimable"]
    measured["memory in use without page cache, MiB"] = round(used)
    for unit in ("vrouter-agent", "vrouter-speaker", "vcenter-manager"):
        measured[f"{unit}, MiB"] = round(int(properties(site, unit, "MemoryCurrent")["MemoryCurrent"]) / 2**20)
    assert used < MOST_MEMORY_MIB


def test_only_ssh_and_pings_reach_the_vm_itself(site: VlanSite) -> None:
    listening = site.vm.shell("ss -H -ltn | awk '{print $4}'").split()
    assert {address.rpartition(":")[0] for address in listening} <= {"127.0.0.1", "0.0.0.0", "[::]", "[::1]"}
    off_loopback = {a.rpartition(":")[2] for a in listening if not a.startswith(("127.0.0.1", "[::1]"))}
    assert off_loopback == {"22"}
    assert "tcp dport 22 accept" in site.vm.shell("nft list table inet tf-host")


def test_a_wrong_setting_is_named_and_the_vm_stays_reachable_and_at_work(site: VlanSite) -> None:
    kept = "/etc/tf-vsphere/vrouter-vm.yaml"
    site.vm.detach_config_drive()
    site.vm.shell(f"cp {kept} /root/right.yaml && sed -i 's/^dvswitch:.*/dvswitch: [dvs-tf]/' {kept}")
    site.vm.shell("systemctl restart vrouter-firstboot", is_checked=False)
    assert "dvswitch: wrong type" in site.vm.shell("cat /etc/issue.d/50-tf-vsphere.issue")
    assert "dvswitch: wrong type" in site.vm.console.read_text(errors="replace")
    assert properties(site, "vcenter-manager", "ActiveState")["ActiveState"] == "active"
    site.vm.shell(f"cp /root/right.yaml {kept} && systemctl restart vrouter-firstboot")
    assert "ok: settings from" in site.vm.shell("cat /etc/issue.d/50-tf-vsphere.issue")
    assert site.can_ping("blue-1", "blue-2", timeout_s=10)


def test_the_critical_chain_waits_for_no_network(site: VlanSite, measured: dict[str, float | str]) -> None:
    site.wait_for(
        lambda: site.vm.shell("systemctl is-system-running", is_checked=False).strip() == "running",
        "the boot to be over",
        timeout_s=SETTLE_S,
    )
    chain = site.vm.shell("systemd-analyze critical-chain vcenter-manager.service --no-pager")
    measured["critical chain"] = chain
    assert "network-online.target" not in chain
    assert "vrouter-agent.service" in chain


def test_after_a_reboot_it_is_back_by_itself(site: VlanSite, measured: dict[str, float | str]) -> None:
    before = site.vm.shell("cat /proc/sys/kernel/random/boot_id").strip()
    began = time.monotonic()
    site.vm.shell("systemd-run --quiet --on-active=1 systemctl reboot")
    site.vm.hang_up()
    last_word = "reboot: Restarting system"  # of the kernel, on the console
    site.wait_for(lambda: last_word in site.vm.console.read_text(errors="replace"), "the VM to go down", timeout_s=240)
    assert site.can_ping("blue-1", "blue-2", timeout_s=BOOT_S)
    measured["reboot: command to forwarding, wall s"] = round(time.monotonic() - began, 1)
    site.vm.wait_for_shell(timeout_s=SETTLE_S)
    assert site.vm.shell("cat /proc/sys/kernel/random/boot_id").strip() != before


def test_after_a_power_cut_it_forwards_without_vcenter_and_tf(site: VlanSite, measured: dict[str, float | str]) -> None:
    site.vm.cut_power()
    assert not site.can_ping("blue-1", "blue-2", timeout_s=1)
    site.vm.is_isolated = True
    began = time.monotonic()
    site.vm.power_on()
    assert site.can_ping("blue-1", "blue-2", timeout_s=BOOT_S)
    measured["power cut: power on to forwarding, wall s"] = round(time.monotonic() - began, 1)
    assert not site.can_ping("red-1", "blue-2", timeout_s=2)
    site.vm.wait_for_shell(timeout_s=SETTLE_S)
    measured["power cut: agent ready, guest s"] = active_since_s(site, "vrouter-agent")
    with pytest.raises(MachineError):
        site.vm.shell("timeout 5 bash -c 'exec 3<>/dev/tcp/198.51.100.2/22'")
