"""The real plugin on the simulated vCenter and the real controller."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from pyVmomi import vim

from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcenter import ROOT
from tests.contract.vcenter_plugin.conftest import Site, eventually
from tf_vsphere.portgroup_mark import find_mark

WRITES = re.compile(r".*_Task|Rename|Destroy")


@contextmanager
def running(site: Site, **changes: Any) -> Iterator[subprocess.Popen[str]]:
    plugin = site.start_plugin(**changes)
    try:
        yield plugin
    finally:
        plugin.kill()
        plugin.communicate()


def writes(site: Site) -> int:
    return sum(number for method, number in site.vcenter.calls().items() if WRITES.fullmatch(method))


def test_a_network_gets_a_marked_portgroup_with_our_settings(site: Site) -> None:
    vn_uuid = site.create_network("blue")
    assert site.run_plugin("--once").returncode == 0
    config = site.config_of("blue")
    mark = find_mark(config.vendorSpecificConfig)
    assert mark is not None
    assert (mark.vn_uuid, mark.fq_name) == (vn_uuid, ("default-domain", "vCenter", "blue"))
    assert mark.project_uuid == site.api.fqname_to_uuid("project", ("default-domain", "vCenter"))
    assert vn_uuid in config.description
    assert (config.type, config.autoExpand, config.numPorts) == ("earlyBinding", True, 4)
    port, policy = config.defaultPortConfig, config.policy
    assert port.blocked.value
    assert port.vlan.vlanId == 0
    security = port.securityPolicy
    assert not (security.allowPromiscuous.value or security.macChanges.value or security.forgedTransmits.value)
    assert policy.vlanOverrideAllowed
    assert policy.blockOverrideAllowed
    assert policy.portConfigResetAtDisconnect


def test_the_tenant_is_made_with_its_ipam_and_its_security_group(bare_site: Site) -> None:
    assert bare_site.run_plugin("--once").returncode == 0
    for resource, fq_name in (
        ("project", ("default-domain", "vCenter")),
        ("network-ipam", ("default-domain", "vCenter", "vCenter-ipam")),
        ("security-group", ("default-domain", "vCenter", "default")),
    ):
        uuid = bare_site.api.fqname_to_uuid(resource, fq_name)
        assert uuid is not None
        made = bare_site.api.read(resource, uuid)
        assert made is not None
        assert made["id_perms"]["creator"] == "vcenter-plugin"
    group = bare_site.api.list("security-group", detail=True)
    rules = next(one for one in group if one["fq_name"][-2:] == ["vCenter", "default"])["security_group_entries"]
    assert [rule["ethertype"] for rule in rules["policy_rule"]] == ["IPv4", "IPv4", "IPv6", "IPv6"]


def test_without_permission_the_tenant_is_not_made_and_nothing_happens(bare_site: Site) -> None:
    assert bare_site.run_plugin("--once", tenant={"create": False}).returncode == 3
    assert bare_site.api.fqname_to_uuid("project", ("default-domain", "vCenter")) is None


def test_many_networks_cost_one_task_and_the_second_pass_writes_nothing(site: Site) -> None:
    uuids = {site.create_network(f"net-{number}") for number in range(20)}
    site.vcenter.forget_calls()
    assert site.run_plugin("--once").returncode == 0
    assert site.marked_networks() == uuids
    assert site.vcenter.calls()["AddDVPortgroup_Task"] == 1
    site.vcenter.forget_calls()
    assert site.run_plugin("--once").returncode == 0
    assert writes(site) == 0


def test_one_portgroup_that_is_refused_does_not_stop_the_others(site: Site) -> None:
    site.vcenter.add_rule(level="task", method="AddDVPortgroup_Task", fault="InvalidArgument", count=1)
    site.vcenter.add_rule(level="task", method="AddDVPortgroup_Task", fault="InvalidArgument", count=1)
    uuids = {site.create_network(f"net-{number}") for number in range(2)}
    result = site.run_plugin("--once")
    assert result.returncode == 3
    assert "InvalidArgument" in result.stderr
    assert len(site.marked_networks()) == 1
    assert site.run_plugin("--once").returncode == 0
    assert site.marked_networks() == uuids


def test_a_dry_run_prints_the_plan_and_changes_nothing(site: Site) -> None:
    site.create_network("blue")
    site.vcenter.forget_calls()
    result = site.run_plugin("--dry-run")
    assert result.returncode == 0
    assert result.stdout.startswith("create portgroup 'blue' for virtual-network default-domain:vCenter:blue")
    assert writes(site) == 0
    assert "blue" not in site.portgroups()


def test_names_with_special_characters_reach_vcenter_escaped_and_stay_put(site: Site) -> None:
    site.create_network("a/b 100%")
    assert site.run_plugin("--once").returncode == 0
    assert "a%2fb 100%25" in site.portgroups()
    site.vcenter.forget_calls()
    assert site.run_plugin("--once").returncode == 0
    assert writes(site) == 0


def test_another_projects_shared_network_shows_its_project(site: Site) -> None:
    site.api.create("project", {"fq_name": ["default-domain", "shop"], "parent_type": "domain"})
    fq_name = ["default-domain", "shop", "web"]
    site.api.create("virtual-network", {"fq_name": fq_name, "parent_type": "project", "is_shared": True})
    assert site.run_plugin("--once").returncode == 0
    assert "shop.web" in site.portgroups()


def test_a_new_display_name_renames_the_portgroup(site: Site) -> None:
    vn_uuid = site.create_network("blue")
    site.run_plugin("--once")
    key = site.config_of("blue").key
    site.api.update("virtual-network", vn_uuid, {"display_name": "azure"})
    assert site.run_plugin("--once").returncode == 0
    assert site.config_of("azure").key == key
    assert "blue" not in site.portgroups()


def test_drift_is_put_back_and_other_fields_stay_as_an_admin_set_them(site: Site) -> None:
    site.create_network("blue")
    site.run_plugin("--once")
    port = vim.dvs.VmwareDistributedVirtualSwitch.VmwarePortConfigPolicy(
        blocked=vim.BoolPolicy(inherited=False, value=False),
        ipfixEnabled=vim.BoolPolicy(inherited=False, value=True),
    )
    policy = site.config_of("blue").policy
    policy.vlanOverrideAllowed = False
    policy.shapingOverrideAllowed = True
    site.reconfigure("blue", description="ours since 2019", defaultPortConfig=port, policy=policy)
    before = site.config_of("blue")
    assert not before.defaultPortConfig.blocked.value
    assert site.run_plugin("--once").returncode == 0
    after = site.config_of("blue")
    assert after.defaultPortConfig.blocked.value
    assert after.policy.vlanOverrideAllowed
    assert after.policy.shapingOverrideAllowed
    assert after.defaultPortConfig.ipfixEnabled.value
    assert after.description == "ours since 2019"
    assert find_mark(after.vendorSpecificConfig) == find_mark(before.vendorSpecificConfig)
    assert after.numPorts == before.numPorts


def test_a_deleted_networks_portgroup_goes_once_nobody_is_connected(site: Site) -> None:
    vn_uuid = site.create_network("blue")
    site.run_plugin("--once")
    site.connect_vm("blue")
    site.api.delete("virtual-network", vn_uuid)
    result = site.run_plugin("--once")
    assert result.returncode == 3
    assert "1 ports are still connected" in result.stderr
    assert "blue" in site.portgroups()
    site.connect_vm("office")
    assert site.run_plugin("--once").returncode == 0
    assert "blue" not in site.portgroups()


def test_foreign_portgroups_are_not_touched_and_a_name_they_have_is_held(site: Site) -> None:
    before = site.config_of("office").configVersion
    site.create_network("Office")
    result = site.run_plugin("--once")
    assert result.returncode == 3
    assert "the name 'Office' is taken by" in result.stderr
    assert site.config_of("office").configVersion == before
    assert site.marked_networks() == set()


def test_an_unusually_large_removal_waits_for_its_confirmation(site: Site) -> None:
    removal = {"most": 1, "share": 1.0, "confirm_file": str(site.directory / "confirm")}
    uuids = [site.create_network(f"net-{number}") for number in range(2)]
    site.run_plugin("--once")
    for vn_uuid in uuids:
        site.api.delete("virtual-network", vn_uuid)
    held = site.run_plugin("--once", removal=removal)
    assert held.returncode == 3
    assert site.marked_networks() == set(uuids)
    fingerprint = re.search(r"confirm exactly these: ([0-9a-f]{16})", held.stderr)
    assert fingerprint is not None
    (site.directory / "confirm").write_text(f"{fingerprint[1]}\n")
    assert site.run_plugin("--once", removal=removal).returncode == 0
    assert site.marked_networks() == set()


def test_a_running_plugin_follows_networks_and_repairs_drift_and_logs_out_at_the_end(site: Site) -> None:
    before = site.vcenter.sessions()
    with running(site) as plugin:
        vn_uuid = site.create_network("blue")
        eventually(lambda: vn_uuid in site.marked_networks())
        site.reconfigure("blue", autoExpand=False)
        eventually(lambda: bool(site.config_of("blue").autoExpand))
        site.vcenter.expire_sessions()
        another = site.create_network("red")
        eventually(lambda: another in site.marked_networks())
        site.api.delete("virtual-network", vn_uuid)
        eventually(lambda: vn_uuid not in site.marked_networks())
        plugin.send_signal(signal.SIGTERM)
        assert plugin.wait(timeout=20) == 0
        assert plugin.stderr is not None
        assert "Traceback" not in plugin.stderr.read()
    eventually(lambda: site.vcenter.sessions() <= before)


def test_a_quiet_plugin_only_waits(site: Site) -> None:
    site.create_network("blue")
    with running(site, sweep={"enabled": False}) as plugin:
        eventually(lambda: "blue" in site.portgroups())
        eventually(lambda: (status := _status(plugin))["in_sync"] and not status["done"])
        site.admin.call("read", "the clock", site.admin.read_current_time)
        site.vcenter.forget_calls()
        eventually(lambda: (status := _status(plugin))["in_sync"] and not status["done"])
        assert set(site.vcenter.calls()) <= {"WaitForUpdatesEx"}


def _status(plugin: subprocess.Popen[str]) -> dict[str, Any]:
    """Ask the plugin; its log line "started" says where."""
    if not hasattr(plugin, "status_address"):
        assert plugin.stderr is not None
        for line in plugin.stderr:
            found = re.search(r" started .*status=(\S+)", line)
            if found:
                plugin.status_address = found[1]  # type: ignore[attr-defined]
                break
    with urllib.request.urlopen(f"http://{plugin.status_address}/status", timeout=10) as reply:  # type: ignore[attr-defined]
        status: dict[str, Any] = json.loads(reply.read())
    return status


def test_killed_between_two_actions_and_started_again_it_ends_the_same(site: Site) -> None:
    gone = site.create_network("gone")
    site.run_plugin("--once")
    site.api.delete("virtual-network", gone)
    uuids = {site.create_network(f"net-{number}") for number in range(3)}
    site.vcenter.add_rule(level="http", method="AddDVPortgroup_Task", delay_ms=20_000, count=1)
    with running(site):
        eventually(lambda: gone not in site.marked_networks())
    site.vcenter.clear_rules()
    with running(site):
        eventually(lambda: site.marked_networks() == uuids)


def test_killed_after_its_request_was_carried_out_it_makes_nothing_twice(site: Site) -> None:
    uuids = {site.create_network(f"net-{number}") for number in range(3)}
    site.vcenter.add_rule(level="http", method="CreateFilter", delay_ms=20_000)
    with running(site):
        eventually(lambda: site.marked_networks() == uuids)
    site.vcenter.clear_rules()
    assert site.run_plugin("--once").returncode == 0
    assert len(site.portgroups()) == 3 + len(_not_ours(site))


def _not_ours(site: Site) -> list[str]:
    return [
        name
        for name, seen in site.portgroups().items()
        if find_mark(seen.properties["config"].vendorSpecificConfig) is None
    ]


def test_two_plugins_at_once_make_each_portgroup_once(site: Site) -> None:
    with running(site), running(site):
        uuids = {site.create_network(f"net-{number}") for number in range(5)}
        eventually(lambda: site.marked_networks() == uuids)
        for vn_uuid in uuids:
            site.api.delete("virtual-network", vn_uuid)
        eventually(lambda: site.marked_networks() == set())


def _swept_network(site: Site) -> str:
    fq_name = ["default-domain", "vCenter", "vCenter-ipam"]
    subnet = {"subnet": {"ip_prefix": "10.9.0.0", "ip_prefix_len": 24}}
    ipam = {
        "to": fq_name,
        "uuid": site.api.fqname_to_uuid("network-ipam", fq_name),
        "attr": {"ipam_subnets": [subnet]},
    }
    return site.create_network("swept", network_ipam_refs=[ipam])


def _leave_behind(
    site: Site, vn_uuid: str, *, vcenter_uuid: str, creator: str = "vcenter-manager", ip_creator: str | None = None
) -> str:
    """Make what a manager makes for a VM with one NIC; return its uuid. `ip_creator`: a service's address."""
    vm_uuid, vmi_uuid, ip_uuid = (str(uuid4()) for _ in range(3))
    made_by = {"id_perms": {"enable": True, "creator": creator}}
    annotation = {"key": "tf-vsphere.vcenter", "value": vcenter_uuid}
    network = {"to": ["default-domain", "vCenter", "swept"], "uuid": vn_uuid, "attr": None}
    vmi_fq_name = ["default-domain", "vCenter", vmi_uuid]
    machine = {"annotations": {"key_value_pair": [annotation]}, "display_name": "left", **made_by}
    interface = {
        "virtual_network_refs": [network],
        "virtual_machine_refs": [{"to": [vm_uuid], "uuid": vm_uuid, "attr": None}],
        **made_by,
    }
    address = {
        "virtual_network_refs": [network],
        "virtual_machine_interface_refs": [{"to": vmi_fq_name, "uuid": vmi_uuid, "attr": None}],
        "id_perms": {"enable": True, "creator": ip_creator or creator},
        "service_instance_ip": ip_creator is not None,
    }
    create = site.api.create
    create("virtual-machine", {"uuid": vm_uuid, "fq_name": [vm_uuid], **machine})
    create(
        "virtual-machine-interface",
        {"uuid": vmi_uuid, "fq_name": vmi_fq_name, "parent_type": "project", **interface},
    )
    create("instance-ip", {"uuid": ip_uuid, "fq_name": [ip_uuid], **address})
    return vm_uuid


def _machines(site: Site) -> set[str]:
    return {str(one["uuid"]) for one in site.api.list("virtual-machine")}


def test_the_sweep_removes_what_a_deleted_vm_left_and_nothing_else(site: Site) -> None:
    vn_uuid, ours = _swept_network(site), site.admin.instance_uuid
    with VsphereAdmin.connect(site.vcenter.simulator) as admin:
        existing = str(admin.vm_object("office-1").config.instanceUuid)
    gone = _leave_behind(site, vn_uuid, vcenter_uuid=ours)
    staying = {
        _leave_behind(site, vn_uuid, vcenter_uuid=str(uuid4())),
        _leave_behind(site, vn_uuid, vcenter_uuid=ours, creator="neutron"),
        _leave_behind(site, vn_uuid, vcenter_uuid=ours, ip_creator="service-chain"),
        site.api.create(
            "virtual-machine",
            {
                "uuid": existing,
                "fq_name": [existing],
                "id_perms": {"enable": True, "creator": "vcenter-manager"},
                "annotations": {"key_value_pair": [{"key": "tf-vsphere.vcenter", "value": ours}]},
            },
        ),
    }
    assert site.run_plugin("--once").returncode == 0
    assert _machines(site) == {gone, *staying}, "one look is not enough"
    with running(site) as plugin:
        eventually(lambda: gone not in _machines(site))
        eventually(lambda: bool(_status(plugin)["held"]))
        assert "was made by service-chain" in str(_status(plugin)["held"])
    assert _machines(site) == staying
    assert len(site.api.list("virtual-machine-interface")) == 3
    assert len(site.api.list("instance-ip")) == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dvswitch": "dvs-other"}, r": dvswitch: no such distributed switch .*'dvs-other'.*allowed: one of dvs-tf"),
        ({"dvswitches": "x"}, r": dvswitches: unknown key"),
        ({"tenant": {"fq_name": "nobody"}}, r": tenant.fq_name: "),
        ({"status": {"listen": "nowhere"}}, r": status.listen: not an address .*'nowhere'.*allowed: address:port"),
        ({"tf": {"servers": ["http://127.0.0.1:1"], "token_file": "/none"}}, r": tf.token_file: cannot read"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line_and_status_2(
    untouched_site: Site, changes: dict[str, Any], expected: str
) -> None:
    result = untouched_site.run_plugin(**changes)
    assert result.returncode == 2
    assert re.search(expected, result.stderr)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ({"port": 1}, r": vcenter.host: cannot reach .*'127.0.0.1:1'.*allowed: host and port"),
        (
            {"thumbprint_sha256": "ab" * 32},
            r": vcenter.thumbprint_sha256: .*'abab.*allowed: .*which is now [0-9a-f]{64}",
        ),
        ({"user": "nobody"}, r": vcenter.user: .*refused user name or password .*'nobody'.*allowed: an account"),
        ({"password_file": "/none"}, r": vcenter.password_file: cannot read .*'/none'.*allowed: a readable file"),
        ({"port": "https"}, r": vcenter.port: wrong type, got `str` .*'https'.*allowed: `int`"),
    ],
)
def test_a_vcenter_that_cannot_be_used_is_one_line_and_status_2(
    untouched_site: Site, mistake: dict[str, Any], expected: str
) -> None:
    reach = untouched_site.vcenter.settings()
    vcenter = {
        "host": reach.host,
        "port": reach.port,
        "user": reach.user,
        "password_file": reach.password_file,
        "thumbprint_sha256": reach.thumbprint_sha256,
    }
    result = untouched_site.run_plugin(vcenter={**vcenter, **mistake})
    assert result.returncode == 2
    assert re.search(expected, result.stderr), result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_file_is_one_line_and_status_2(untouched_site: Site) -> None:
    command = [sys.executable, "-m", "vcenter_plugin", "-c", str(untouched_site.directory / "none.yaml")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert re.fullmatch(r".*none\.yaml: cannot read the configuration file: .*\n", result.stderr)
