"""Names as vCenter takes them, people who change portgroups by hand, and a config API that dies."""

from __future__ import annotations

import signal
from uuid import uuid4

import pytest

from lab.controller import Controller
from tests.contract.vcenter import Vcenter
from tests.contract.vcenter_plugin.conftest import TENANT, Site, eventually
from tests.contract.vcenter_plugin.test_plugin import running, writes
from tf_vsphere.portgroup_mark import find_mark
from tf_vsphere.session import connect
from vcenter_plugin.names import MOST_CHARACTERS, parse_name
from vcenter_plugin.tenant import tenant_objects

ODD_NAMES = (
    "a/b",
    "a\\b",
    "100%",
    "%2f",
    "a%252fb",
    'say "hello"',
    "net:1",
    "  spaced  out",
    "Zürich-名前-🙂",
    "<&>'",
    "x" * 80,
    "y" * 81,
    "z" * 300,
    "/" * 40,
    "%" * 27,
    "ß" * 80,
)


def test_networks_with_odd_names_get_portgroups_that_stay_put(site: Site) -> None:
    """As display names, which people choose freely: each can be told from all others, and is not written again."""
    uuids = {site.create_network(f"net-{at}", display_name=name): name for at, name in enumerate(ODD_NAMES)}
    site.api.create("project", {"fq_name": ["default-domain", "other"], "parent_type": "domain"})
    shared = {"fq_name": ["default-domain", "other", "twin"], "parent_type": "project", "is_shared": True}
    twins = {site.create_network("twin"), site.api.create("virtual-network", shared)}
    assert site.run_plugin("--once").returncode == 0
    portgroups = site.portgroups()
    named = {
        mark.vn_uuid: parse_name(name)
        for name, seen in portgroups.items()
        if (mark := find_mark(seen.properties["config"].vendorSpecificConfig)) is not None
    }
    assert set(named) == {*uuids, *twins}
    assert {named[vn_uuid] for vn_uuid in twins} == {"twin", "other.twin"}
    for vn_uuid, name in uuids.items():
        shown = named[vn_uuid]
        assert shown == name or (shown.endswith(f"~{vn_uuid[:8]}") and name.startswith(shown.rpartition("~")[0]))
    assert max(len(name) for name in portgroups) == MOST_CHARACTERS
    site.vcenter.forget_calls()
    assert site.run_plugin("--once").returncode == 0
    assert writes(site) == 0


def test_of_case_twins_the_one_that_has_the_name_keeps_it(site: Site) -> None:
    first = site.create_network("Blue")
    assert site.run_plugin("--once").returncode == 0
    second = site.create_network("bLUE")
    held = site.run_plugin("--once")
    assert held.returncode == 3
    assert "wants the name 'bLUE' too" in held.stderr or "still that of the portgroup" in held.stderr
    assert site.marked_networks() == {first}
    site.api.delete("virtual-network", first)
    eventually(lambda: site.run_plugin("--once").returncode == 0)
    assert site.marked_networks() == {second}


def test_a_portgroup_that_somebody_renames_gets_its_name_back_and_stays_the_same(site: Site) -> None:
    site.create_network("blue")
    site.run_plugin("--once")
    key = site.config_of("blue").key
    for name in (str(uuid4()), "BLUE", "azure"):
        site.rename_portgroup("blue", name)
        assert site.run_plugin("--once").returncode == 0
        assert site.config_of("blue").key == key


def test_a_portgroup_that_somebody_deletes_is_made_again(site: Site) -> None:
    vn_uuid = site.create_network("blue")
    with running(site):
        eventually(lambda: vn_uuid in site.marked_networks())
        before = site.portgroups()["blue"]
        site.run("destroy", before.managed_object.Destroy_Task)
        eventually(lambda: vn_uuid in site.marked_networks())
        assert site.config_of("blue").key != before.properties["config"].key


def test_a_mark_that_somebody_takes_away_is_not_put_back_by_name(site: Site) -> None:
    """Without its mark a portgroup is somebody else's, though its name is that of a network of ours."""
    vn_uuid = site.create_network("blue")
    site.run_plugin("--once")
    blobs = site.config_of("blue").vendorSpecificConfig
    for blob in blobs:
        blob.opaqueData = "none"
    site.reconfigure("blue", vendorSpecificConfig=blobs)
    version = site.config_of("blue").configVersion
    held = site.run_plugin("--once")
    assert held.returncode == 3
    assert "the name 'blue' is taken by" in held.stderr
    assert site.config_of("blue").configVersion == version
    assert vn_uuid not in site.marked_networks()


def test_a_restored_backup_with_doubled_marks_is_left_alone(site: Site) -> None:
    """vCenter's restore of a switch makes portgroups anew with all that they carried: two of one network."""
    vn_uuid = site.create_network("blue")
    site.run_plugin("--once")
    site.add_portgroup("blue restored", vendorSpecificConfig=site.config_of("blue").vendorSpecificConfig)
    site.api.delete("virtual-network", vn_uuid)
    held = site.run_plugin("--once")
    assert held.returncode == 3
    assert "another portgroup carries the same mark" in held.stderr
    assert {"blue", "blue restored"} <= set(site.portgroups())
    site.run("destroy", site.portgroups()["blue restored"].managed_object.Destroy_Task)
    assert site.run_plugin("--once").returncode == 0
    assert "blue" not in site.portgroups()


def test_two_switches_with_a_plugin_and_a_tenant_each_do_not_meet(site: Site) -> None:
    site.create_switch("dvs-east")
    east = ("default-domain", "East")
    for new in tenant_objects(east):
        site.api.create(new.resource, new.body)
    west_uuid = site.create_network("blue")
    east_uuid = site.api.create("virtual-network", {"fq_name": [*east, "red"], "parent_type": "project"})
    settings = {"dvswitch": "dvs-east", "tenant": {"fq_name": ":".join(east)}}
    for _ in range(2):
        assert site.run_plugin("--once").returncode == 0
        assert site.run_plugin("--once", **settings).returncode == 0
    assert site.marked_networks() == {west_uuid}
    assert site.marked_networks("dvs-east") == {east_uuid}
    site.api.delete("virtual-network", east_uuid)
    assert site.run_plugin("--once", **settings).returncode == 0
    assert site.marked_networks("dvs-east") == set()
    assert site.marked_networks() == {west_uuid}


def test_an_api_that_dies_while_the_plugin_runs_costs_no_portgroup(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("dying")
    with Vcenter(folder) as vcenter, Controller() as controller:
        admin, api = connect(vcenter.settings(), "test.yaml", "vcenter"), controller.api()
        site = Site(vcenter=vcenter, api=api, admin=admin, directory=folder)
        for new in tenant_objects(TENANT):
            api.create(new.resource, new.body)
        uuids = {site.create_network(f"net-{number}") for number in range(3)}
        with running(site) as plugin:
            eventually(lambda: site.marked_networks() == uuids)
            controller.stop()
            site.reconfigure("net-0", autoExpand=False)
            eventually(lambda: bool(site.config_of("net-0").autoExpand))  # a pass without TF has come and gone
            assert site.marked_networks() == uuids
            plugin.send_signal(signal.SIGTERM)
            assert plugin.wait(timeout=20) == 0
        admin.close()
        api.close()
