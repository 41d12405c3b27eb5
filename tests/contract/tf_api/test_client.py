"""The client against the real embedded controller, with and without losses on the way."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lab.controller import Controller
from tests.contract.tf_api.unreliable import Fate, UnreliableProxy
from tf_api import client
from tf_api.client import ConfigApi
from tf_reconcile.errors import Conflict, Rejected, Transient


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    with Controller() as running:
        yield running


@pytest.fixture
def proxy(controller: Controller) -> Iterator[UnreliableProxy]:
    with UnreliableProxy(controller.url).running() as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


LOSSES = [Fate.LOSE_REQUEST, Fate.LOSE_ANSWER, Fate.OUTAGE, Fate.OUTAGE_AFTER_DOING]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_create_whose_answer_is_lost_makes_exactly_one_object(
    controller: Controller, proxy: UnreliableProxy, name: str, loss: Fate
) -> None:
    proxy.fates.append(loss)
    uuid = ConfigApi([proxy.url]).create("virtual-machine", {"fq_name": [name]})
    assert controller.api().fqname_to_uuid("virtual-machine", [name]) == uuid
    was_done = loss in (Fate.LOSE_ANSWER, Fate.OUTAGE_AFTER_DOING)
    assert proxy.seen.count("POST /virtual-machines") == (1 if was_done else 2)
    assert proxy.seen[1].startswith(f"GET /virtual-machine/{uuid}")


def test_a_create_that_arrives_after_the_look_up_counts_as_done(
    controller: Controller, proxy: UnreliableProxy, name: str
) -> None:
    proxy.fates.append(Fate.LATE)
    uuid = ConfigApi([proxy.url]).create("virtual-machine", {"fq_name": [name]})
    assert proxy.seen.count("POST /virtual-machines") == 2
    assert controller.api().fqname_to_uuid("virtual-machine", [name]) == uuid


def test_anothers_object_of_that_name_is_a_conflict_even_after_a_loss(
    controller: Controller, proxy: UnreliableProxy, name: str
) -> None:
    controller.api().create("virtual-machine", {"fq_name": [name]})
    proxy.fates.append(Fate.LOSE_REQUEST)
    with pytest.raises(Conflict):
        ConfigApi([proxy.url]).create("virtual-machine", {"fq_name": [name]})


def test_a_create_that_nobody_answers_is_transient(proxy: UnreliableProxy, name: str) -> None:
    proxy.fates += [Fate.OUTAGE] * 20
    with pytest.raises(Transient, match="503"):
        ConfigApi([proxy.url]).create("virtual-machine", {"fq_name": [name]})


@pytest.mark.parametrize("loss", LOSSES)
def test_reads_updates_and_deletes_are_repeated(
    controller: Controller, proxy: UnreliableProxy, name: str, loss: Fate
) -> None:
    uuid = controller.api().create("virtual-machine", {"fq_name": [name]})
    api = ConfigApi([proxy.url])
    proxy.fates.append(loss)
    assert (api.read("virtual-machine", uuid) or {})["fq_name"] == [name]
    proxy.fates.append(loss)
    assert [found["uuid"] for found in api.list("virtual-machine", uuids=[uuid])] == [uuid]
    proxy.fates.append(loss)
    api.update("virtual-machine", uuid, {"display_name": "new"})
    assert (api.read("virtual-machine", uuid) or {})["display_name"] == "new"
    proxy.fates.append(loss)
    api.delete("virtual-machine", uuid)
    assert api.read("virtual-machine", uuid) is None


def test_another_server_of_the_list_answers_and_is_asked_first_from_then_on(
    controller: Controller, dead_url: str, name: str
) -> None:
    api = ConfigApi([dead_url, controller.url])
    api.create("virtual-machine", {"fq_name": [name]})
    assert api.calls["create"] + api.calls["read"] == 2  # the dead one, then the living one
    api.list("domain")
    assert api.calls["list"] == 1


def test_when_no_server_answers_it_is_transient_and_names_them(dead_url: str) -> None:
    with pytest.raises(Transient, match=dead_url):
        ConfigApi([dead_url]).list("domain")


def test_what_is_absent_is_none_or_false_and_never_an_error(controller: Controller) -> None:
    api = controller.api()
    unknown = "99999999-0000-4000-8000-000000000000"
    assert api.read("virtual-machine", unknown) is None
    assert api.fqname_to_uuid("virtual-machine", ["nobody"]) is None
    assert api.uuid_to_fqname(unknown) is None
    assert api.delete("virtual-machine", unknown) is False
    assert api.list("virtual-machine", uuids=[unknown]) == []


def test_the_kinds_of_refusal(controller: Controller, name: str) -> None:
    api = controller.api()
    uuid = api.create("virtual-machine", {"fq_name": [name]})
    with pytest.raises(Conflict):  # the name is in use
        api.create("virtual-machine", {"fq_name": [name]})
    with pytest.raises(Conflict):  # gone
        api.update("virtual-machine", "99999999-0000-4000-8000-000000000000", {"display_name": "x"})
    with pytest.raises(Rejected):  # wrong input
        api.update("virtual-machine", uuid, {"server_type": "toaster"})
    with pytest.raises(Rejected):  # a plain mistake that the server answers with 500
        api.create(
            "virtual-machine-interface",
            {"fq_name": ["default-domain", "default-project", "x"], "parent_type": "project"},
        )
    with pytest.raises(Rejected):
        api.list("no-such-type")


def test_lists_by_parent_reference_uuid_and_filter(controller: Controller, name: str) -> None:
    api = controller.api()
    project = api.create("project", {"fq_name": ["default-domain", name], "parent_type": "domain"})
    network = api.create("virtual-network", {"fq_name": ["default-domain", name, "net"], "parent_type": "project"})
    body = {
        "parent_type": "project",
        "virtual_network_refs": [{"to": ["default-domain", name, "net"], "uuid": network}],
    }
    ports = [
        api.create("virtual-machine-interface", {"fq_name": ["default-domain", name, f"p{number}"], **body})
        for number in range(60)
    ]
    before = dict(api.calls)
    assert [found["uuid"] for found in api.list("virtual-machine-interface", parent_uuid=project)] == ports
    assert {found["uuid"] for found in api.list("virtual-machine-interface", back_ref_uuids=[network])} == {*ports}
    assert {found["uuid"] for found in api.list("virtual-machine-interface", uuids=ports[:40])} == {*ports[:40]}
    named = api.list("virtual-machine-interface", filters={"display_name": "p7"}, fields=("display_name",))
    assert [found["display_name"] for found in named] == ["p7"]
    detailed = api.list("virtual-machine-interface", uuids=ports[:2], detail=True)
    assert all(found["virtual_network_refs"][0]["uuid"] == network for found in detailed)
    assert api.calls["list"] - before.get("list", 0) == 5
    with pytest.raises(ValueError, match="comma"):
        api.list("virtual-machine-interface", filters={"display_name": "a,b"})


def test_very_many_uuids_are_asked_for_in_parts_and_no_element_comes_twice(
    controller: Controller, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_MAX_UUIDS_IN_BODY", 15)
    api = controller.api()
    uuids = [api.create("virtual-machine", {"fq_name": [f"{name}-{number}"]}) for number in range(40)]
    assert sorted(found["uuid"] for found in api.list("virtual-machine", uuids=uuids + uuids[:3])) == sorted(uuids)
    assert api.calls["list"] == 3


def test_no_uuids_means_none_and_not_all(controller: Controller) -> None:
    api = controller.api()
    assert api.list("domain", uuids=[]) == []
    assert api.list("domain", back_ref_uuids=()) == []
    assert api.calls["list"] == 0
    assert api.list("domain") != []


def test_one_reference_is_added_and_removed_without_touching_others(controller: Controller, name: str) -> None:
    api = controller.api()
    router = {"fq_name": ["default-global-system-config", name], "parent_type": "global-system-config"}
    uuid = api.create("virtual-router", router)
    machines = [api.create("virtual-machine", {"fq_name": [f"{name}-{number}"]}) for number in range(2)]
    for machine in machines:
        api.ref_update("virtual-router", uuid, operation="ADD", ref_resource="virtual-machine", ref_uuid=machine)
    api.ref_update("virtual-router", uuid, operation="DELETE", ref_resource="virtual-machine", ref_uuid=machines[0])
    refs = (api.read("virtual-router", uuid) or {})["virtual_machine_refs"]
    assert [ref["uuid"] for ref in refs] == machines[1:]
