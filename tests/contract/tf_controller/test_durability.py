"""What was acknowledged survives, and no address is given to two."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.controller import Controller
from tf_api.client import ConfigApi
from tf_reconcile.errors import AgentError, Rejected, Transient

PROJECT = ["default-domain", "demo"]
WRITERS = 4


def make_network(api: ConfigApi, name: str, prefix: str, length: int) -> str:
    if api.fqname_to_uuid("project", PROJECT) is None:
        api.create("project", {"fq_name": PROJECT, "parent_type": "domain"})
        api.create("network-ipam", {"fq_name": [*PROJECT, "ipam"], "parent_type": "project"})
    subnets = {"ipam_subnets": [{"subnet": {"ip_prefix": prefix, "ip_prefix_len": length}}]}
    body = {
        "fq_name": [*PROJECT, name],
        "parent_type": "project",
        "network_ipam_refs": [{"to": [*PROJECT, "ipam"], "attr": subnets}],
    }
    return api.create("virtual-network", body)


def make_address(api: ConfigApi, name: str, network: str) -> str:
    refs = [{"to": [*PROJECT, network]}]
    return api.create("instance-ip", {"fq_name": [name], "virtual_network_refs": refs})


def write_until_it_dies(url: str, writer: int, acknowledged: list[str], enough: threading.Event) -> None:
    api = ConfigApi([url], timeout_s=5.0)
    number = 0
    try:
        while True:
            number += 1
            acknowledged.append(make_address(api, f"address-{writer}-{number}", "blue"))
            if number == 10:
                enough.set()
    except Transient:
        return


def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    acknowledged: list[list[str]] = [[] for _ in range(WRITERS)]
    enough = threading.Event()
    controller = Controller(directory=tmp_path)
    controller.start()
    make_network(controller.api(), "blue", "10.0.0.0", 16)
    arguments = [(controller.url, writer, acknowledged[writer], enough) for writer in range(WRITERS)]
    threads = [threading.Thread(target=write_until_it_dies, args=args) for args in arguments]
    for thread in threads:
        thread.start()
    assert enough.wait(30)
    controller.kill()
    for thread in threads:
        thread.join(30)
    with Controller(directory=tmp_path) as again:
        found = again.api().list("instance-ip", fields=("instance_ip_address",))
    stored = {element["uuid"]: element["instance_ip_address"] for element in found}
    assert {uuid for some in acknowledged for uuid in some} <= stored.keys()
    assert len(set(stored.values())) == len(stored)


def test_clients_at_once_never_get_one_address_twice_and_fill_the_subnet_to_the_last() -> None:
    with Controller() as controller:
        make_network(controller.api(), "small", "10.0.0.0", 26)
        apis = [controller.api() for _ in range(WRITERS)]

        def allocate(number: int) -> str | None:
            try:
                return make_address(apis[number % WRITERS], f"address-{number}", "small")
            except Rejected:
                return None

        with ThreadPoolExecutor(WRITERS) as pool:
            uuids = [uuid for uuid in pool.map(allocate, range(70)) if uuid is not None]
        found = controller.api().list("instance-ip", uuids=uuids, fields=("instance_ip_address",))
    addresses = [element["instance_ip_address"] for element in found]
    assert len(addresses) == len(set(addresses)) == 60  # 64 less network, broadcast, gateway and service address


def test_a_refused_create_leaves_nothing_behind() -> None:
    with Controller() as controller:
        api = controller.api()
        make_network(api, "blue", "10.0.0.0", 24)
        wrong: Sequence[dict[str, object]] = (
            {"fq_name": ["x"], "virtual_network_refs": [{"to": [*PROJECT, "blue"]}], "subnet_uuid": "none"},
            {"fq_name": ["x"], "virtual_network_refs": [{"to": [*PROJECT, "blue"]}], "instance_ip_address": "zz"},
        )
        for body in wrong:
            with pytest.raises(Rejected):
                api.create("instance-ip", body)
        uuid = make_address(api, "x", "blue")
        assert (api.read("instance-ip", uuid) or {})["instance_ip_address"] == "10.0.0.252"


def test_a_second_process_on_one_database_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Controller(directory=tmp_path), pytest.raises(RuntimeError, match="status 2"):
        Controller(directory=tmp_path).start()
    assert "database: another process uses this database" in capfd.readouterr().err


def test_a_stopped_controller_starts_again_with_what_it_had(tmp_path: Path) -> None:
    with Controller(directory=tmp_path) as controller:
        make_network(controller.api(), "blue", "10.0.0.0", 24)
        before = controller.api().list("virtual-network", detail=True)
    with Controller(directory=tmp_path) as controller:
        assert _without_href(controller.api().list("virtual-network", detail=True)) == _without_href(before)
        with pytest.raises(AgentError):
            make_network(controller.api(), "blue", "10.0.0.0", 24)


def _without_href(elements: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in element.items() if key != "href"} for element in elements]
