"""What the real server was observed to do beyond the recorded calls, one rule at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from lab.controller import Controller

DOMAIN = "default-domain"


class Http:
    """Calls as they are on the wire."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(retries=False)

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        encoded = json.dumps(body) if body is not None else None
        answer = self._pool.request(method, self._url + path, body=encoded, headers=headers)
        is_json = answer.headers.get("Content-Type") == "application/json"
        return answer.status, json.loads(answer.data) if is_json else answer.data.decode()

    def create(self, resource: str, **body: Any) -> str:
        status, answer = self.call("POST", f"/{resource}s", {resource: body})
        assert status == 200, answer
        return str(answer[resource]["uuid"])

    def read(self, resource: str, uuid: str) -> dict[str, Any]:
        status, answer = self.call("GET", f"/{resource}/{uuid}")
        assert status == 200, answer
        return dict(answer[resource])

    def update(self, resource: str, uuid: str, **body: Any) -> int:
        return self.call("PUT", f"/{resource}/{uuid}", {resource: body})[0]

    def names(self, path: str) -> list[str]:
        status, answer = self.call("GET", path)
        assert status == 200, answer
        return [element["fq_name"][-1] for element in next(iter(answer.values()))]


@pytest.fixture(scope="module")
def http() -> Iterator[Http]:
    with Controller() as controller:
        yield Http(controller.url)


@pytest.fixture
def project(http: Http, request: pytest.FixtureRequest) -> list[str]:
    name = [DOMAIN, str(request.node.name).replace(":", "-")]
    http.create("project", fq_name=name, parent_type="domain")
    http.create("network-ipam", fq_name=[*name, "ipam"], parent_type="project")
    return name


def network(http: Http, project: list[str], name: str, *prefixes: str, **subnet: Any) -> str:
    subnets = [
        {"subnet": {"ip_prefix": prefix.split("/")[0], "ip_prefix_len": int(prefix.split("/")[1])}, **subnet}
        for prefix in prefixes
    ]
    refs = [{"to": [*project, "ipam"], "attr": {"ipam_subnets": subnets}}] if prefixes else []
    return http.create("virtual-network", fq_name=[*project, name], parent_type="project", network_ipam_refs=refs)


# Creating


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"fq_name": [DOMAIN, "p"]}, 500),
        (
            {"fq_name": [DOMAIN, "p"], "parent_type": "domain", "parent_uuid": "00000000-0000-4000-8000-000000000000"},
            404,
        ),
        ({"fq_name": [DOMAIN, "p"], "parent_type": "domain", "uuid": "AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE"}, 400),
        ({"fq_name": [DOMAIN, "tab\there"], "parent_type": "domain"}, 400),
        ({"fq_name": "p", "parent_type": "domain"}, 400),
    ],
)
def test_a_create_that_is_wrong(http: Http, body: dict[str, Any], status: int) -> None:
    assert http.call("POST", "/projects", {"project": body})[0] == status


def test_a_missing_parent_that_is_no_domain_is_404(http: Http) -> None:
    body = {"fq_name": [DOMAIN, "nobody", "net"], "parent_type": "project"}
    assert http.call("POST", "/virtual-networks", {"virtual-network": body})[0] == 404


def test_of_id_perms_a_create_takes_four_keys_and_an_update_two(http: Http) -> None:
    given = {"creator": "me", "description": "d", "enable": False, "user_visible": False, "created": "x"}
    uuid = http.create("virtual-machine", fq_name=["perms"], id_perms=given)
    created = http.read("virtual-machine", uuid)["id_perms"]
    assert [created[key] for key in ("creator", "description", "enable", "user_visible")] == ["me", "d", False, False]
    assert created["created"] != "x"
    assert (
        http.update("virtual-machine", uuid, id_perms={"creator": "other", "description": "new", "enable": True}) == 200
    )
    updated = http.read("virtual-machine", uuid)["id_perms"]
    assert [updated[key] for key in ("creator", "description", "enable")] == ["me", "new", True]


def test_perms2_cannot_lose_its_owner(http: Http) -> None:
    uuid = http.create("virtual-machine", fq_name=["owner"])
    assert http.update("virtual-machine", uuid, perms2={"global_access": 7}) == 400
    assert http.update("virtual-machine", uuid, perms2={"owner": "me", "global_access": 5}) == 200
    assert http.read("virtual-machine", uuid)["perms2"]["global_access"] == 5


# Networks and addresses


def test_network_ids_are_the_lowest_free_and_free_again_after_a_delete(http: Http, project: list[str]) -> None:
    first, second = network(http, project, "a"), network(http, project, "b")
    number = http.read("virtual-network", first)["virtual_network_network_id"]
    assert http.read("virtual-network", second)["virtual_network_network_id"] == number + 1
    assert http.call("DELETE", f"/virtual-network/{first}")[0] == 200
    third = network(http, project, "c")
    assert http.read("virtual-network", third)["virtual_network_network_id"] == number


def test_a_shared_network_is_open_to_all_and_an_external_one_to_readers(http: Http, project: list[str]) -> None:
    uuid = network(http, project, "net")
    for changed, access, shared in (
        ({"is_shared": True}, 7, True),
        ({"is_shared": False, "router_external": True}, 5, False),
        ({"router_external": False}, 0, False),
        ({"perms2": {"owner": "cloud-admin", "global_access": 7}}, 7, True),
    ):
        assert http.update("virtual-network", uuid, **changed) == 200
        found = http.read("virtual-network", uuid)
        assert (found["perms2"]["global_access"], found["is_shared"]) == (access, shared)


def test_a_full_subnet_gives_way_to_the_next_and_families_are_kept_apart(http: Http, project: list[str]) -> None:
    network(http, project, "net", "10.0.0.0/29", "10.0.1.0/29", "fd00::/64")
    refs = [{"to": [*project, "net"]}]

    def take(name: str, **more: Any) -> str:
        uuid = http.create("instance-ip", fq_name=[f"{project[1]}-{name}"], virtual_network_refs=refs, **more)
        return str(http.read("instance-ip", uuid)["instance_ip_address"])

    taken = [take(str(number)) for number in range(6)]
    assert taken == ["10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1", "10.0.1.4", "10.0.1.3"]
    assert take("six", instance_ip_family="v6") == "fd00::ffff:ffff:ffff:fffc"


def test_the_gateway_address_is_not_for_a_vm(http: Http, project: list[str]) -> None:
    net = network(http, project, "net", "10.0.0.0/24")
    machine = http.create("virtual-machine", fq_name=[f"{project[1]}-vm"])
    refs = [{"to": [*project, "net"], "uuid": net}]
    name = [*project, "port"]
    port = http.create(
        "virtual-machine-interface",
        fq_name=name,
        parent_type="project",
        virtual_network_refs=refs,
        virtual_machine_refs=[{"to": [f"{project[1]}-vm"], "uuid": machine}],
    )
    body = {"instance_ip_address": "10.0.0.254", "virtual_network_refs": refs}
    with_port = {**body, "fq_name": ["x"], "virtual_machine_interface_refs": [{"to": name, "uuid": port}]}
    assert http.call("POST", "/instance-ips", {"instance-ip": with_port})[0] == 400
    http.create("instance-ip", fq_name=[f"{project[1]}-gw1"], **body)
    http.create("instance-ip", fq_name=[f"{project[1]}-gw2"], **body)


def test_addresses_without_an_object_are_all_or_none_counted_and_freed(http: Http, project: list[str]) -> None:
    uuid = network(http, project, "net", "10.0.0.0/29")
    subnet = http.read("virtual-network", uuid)["network_ipam_refs"][0]["attr"]["ipam_subnets"][0]["subnet_uuid"]
    path = f"/virtual-network/{uuid}"
    assert http.call("POST", f"{path}/ip-alloc", {"count": 10**9})[0] == 400
    status, answer = http.call("POST", f"{path}/ip-alloc", {"count": 4, "subnet": subnet})
    assert (status, answer) == (200, {"ip_addr": ["10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1"]})
    assert http.call("POST", f"{path}/subnet-ip-count", {"subnet_list": [subnet]})[1] == {"ip_count_list": [4]}
    assert http.call("POST", f"{path}/ip-free", {"ip_addr": ["10.0.0.2"]})[0] == 200
    assert http.call("POST", f"{path}/ip-alloc", {"count": 1})[1] == {"ip_addr": ["10.0.0.2"]}


def test_a_subnet_in_use_cannot_go_and_can_once_it_is_free(http: Http, project: list[str]) -> None:
    uuid = network(http, project, "net", "10.0.0.0/29")
    refs = [{"to": [*project, "net"]}]
    address = http.create("instance-ip", fq_name=[f"{project[1]}-a"], virtual_network_refs=refs)
    assert http.update("virtual-network", uuid, network_ipam_refs=[]) == 409
    assert http.call("DELETE", f"/instance-ip/{address}")[0] == 200
    assert http.update("virtual-network", uuid, network_ipam_refs=[]) == 200


def test_a_network_goes_with_its_routing_instance_even_if_a_moved_interface_still_names_it(
    http: Http, project: list[str]
) -> None:
    old, _ = network(http, project, "old"), network(http, project, "new")
    port = http.create(
        "virtual-machine-interface",
        fq_name=[*project, "port"],
        parent_type="project",
        virtual_network_refs=[{"to": [*project, "old"]}],
    )
    assert http.update("virtual-machine-interface", port, virtual_network_refs=[{"to": [*project, "new"]}]) == 200
    assert http.read("virtual-machine-interface", port)["routing_instance_refs"][0]["to"] == [*project, "old", "old"]
    assert http.call("DELETE", f"/virtual-network/{old}")[0] == 200
    assert "routing_instance_refs" not in http.read("virtual-machine-interface", port)


def test_a_whole_project_goes_in_the_documented_order(http: Http, project: list[str]) -> None:
    net = network(http, project, "net", "10.0.0.0/24")
    machine = http.create("virtual-machine", fq_name=[f"{project[1]}-vm"])
    port = http.create(
        "virtual-machine-interface",
        fq_name=[*project, "port"],
        parent_type="project",
        virtual_network_refs=[{"to": [*project, "net"]}],
        virtual_machine_refs=[{"to": [f"{project[1]}-vm"]}],
    )
    address = http.create(
        "instance-ip",
        fq_name=[f"{project[1]}-ip"],
        virtual_network_refs=[{"to": [*project, "net"]}],
        virtual_machine_interface_refs=[{"to": [*project, "port"]}],
    )
    ipam = http.call("POST", "/fqname-to-id", {"type": "network-ipam", "fq_name": [*project, "ipam"]})[1]["uuid"]
    owner = http.call("POST", "/fqname-to-id", {"type": "project", "fq_name": project})[1]["uuid"]
    things = [
        ("instance-ip", address),
        ("virtual-machine-interface", port),
        ("virtual-machine", machine),
        ("virtual-network", net),
        ("network-ipam", ipam),
        ("project", owner),
    ]
    for resource, uuid in reversed(things[1:]):
        assert http.call("DELETE", f"/{resource}/{uuid}")[0] == 409
    for resource, uuid in things:
        assert http.call("DELETE", f"/{resource}/{uuid}") == (200, "")
    name = {"type": "application-policy-set", "fq_name": [*project, "default-application-policy-set"]}
    assert http.call("POST", "/fqname-to-id", name)[0] == 404


# Properties that are maps and lists


def test_elements_of_a_map_are_set_by_key_and_those_of_a_list_by_position(http: Http, project: list[str]) -> None:
    port = http.create(
        "virtual-machine-interface",
        fq_name=[*project, "p"],
        parent_type="project",
        virtual_network_refs=[{"to": [DOMAIN, "default-project", "ip-fabric"]}],
    )
    field = "virtual_machine_interface_fat_flow_protocols"

    def change(*steps: dict[str, Any]) -> int:
        return http.call("POST", "/prop-collection-update", {"uuid": port, "updates": [*steps]})[0]

    def ports() -> list[int]:
        found = http.read("virtual-machine-interface", port).get(field) or {}
        return [element["port"] for element in found.get("fat_flow_protocol", [])]

    tcp, udp, sctp = ({"protocol": "tcp", "port": number} for number in (1, 2, 3))
    assert change(*({"field": field, "operation": "add", "value": value} for value in (tcp, udp))) == 200
    assert change({"field": field, "operation": "modify", "value": sctp, "position": "0"}) == 200
    assert ports() == [3, 2]
    assert change({"field": field, "operation": "delete", "position": "0"}) == 200
    assert change({"field": field, "operation": "delete", "position": "7"}) == 200
    assert ports() == [2]
    assert change({"field": field, "operation": "delete", "position": "0"}) == 200
    assert field not in http.read("virtual-machine-interface", port)
    for value in ("one", "two"):
        step = {"field": "annotations", "operation": "set", "value": {"key": "k", "value": value}, "position": "k"}
        assert change(step) == 200
    annotations = http.read("virtual-machine-interface", port)["annotations"]
    assert annotations == {"key_value_pair": [{"key": "k", "value": "two"}]}


# Tags by type and value


def tag(http: Http, name: str, scope: list[str] | None = None) -> str:
    of_type, value = name.split("=")
    parent = {"parent_type": "project"} if scope else {}
    return http.create("tag", fq_name=[*(scope or ()), name], tag_type_name=of_type, tag_value=value, **parent)


def set_tags(http: Http, resource: str, uuid: str, **wanted: Any) -> int:
    return http.call("POST", "/set-tag", {"obj_type": resource, "obj_uuid": uuid, **wanted})[0]


def tags_of(http: Http, resource: str, uuid: str) -> set[str]:
    return {ref["uuid"] for ref in http.read(resource, uuid).get("tag_refs", ())}


def test_an_object_has_one_tag_of_a_type_and_it_is_of_its_project_unless_called_global(
    http: Http, project: list[str]
) -> None:
    net, value = network(http, project, "net"), project[1]
    of_all, own, other = tag(http, f"tier={value}"), tag(http, f"tier={value}2", project), tag(http, "site=x", project)
    assert set_tags(http, "virtual_network", net, tier={"value": value}) == 404
    assert set_tags(http, "virtual_network", net, tier={"value": value, "is_global": True}) == 200
    assert set_tags(http, "virtual-network", net, site={"value": "x"}) == 200
    assert tags_of(http, "virtual-network", net) == {of_all, other}
    assert set_tags(http, "virtual_network", net, TIER={"value": f"{value}2"}) == 200
    assert tags_of(http, "virtual-network", net) == {own, other}
    assert set_tags(http, "virtual_network", net, tier=None) == 200
    assert tags_of(http, "virtual-network", net) == {other}


def test_labels_add_up_and_are_taken_away_by_value_or_all_at_once(http: Http, project: list[str]) -> None:
    net = network(http, project, "net")
    red, blue, grey = (tag(http, f"label={value}", project) for value in ("red", "blue", "grey"))
    assert set_tags(http, "virtual_network", net, label={"value": "red", "add_values": ["blue"]}) == 200
    assert tags_of(http, "virtual-network", net) == {red, blue}
    assert set_tags(http, "virtual_network", net, label={"add_values": ["grey"], "delete_values": ["red", "no"]}) == 200
    assert tags_of(http, "virtual-network", net) == {blue, grey}
    assert set_tags(http, "virtual_network", net, label=None) == 200
    assert tags_of(http, "virtual-network", net) == set()


def test_what_is_so_already_is_no_change_and_what_is_refused_changes_nothing(http: Http, project: list[str]) -> None:
    net = network(http, project, "net")
    db = tag(http, "tier=db", project)
    assert set_tags(http, "virtual_network", net, tier={"value": "db"}) == 200
    before = http.read("virtual-network", net)["id_perms"]["last_modified"]
    assert set_tags(http, "virtual_network", net, tier={"value": "db"}, label=None) == 200
    assert set_tags(http, "virtual_network", net, tier=None, site={"value": "unknown"}) == 404
    assert http.read("virtual-network", net)["id_perms"]["last_modified"] == before
    assert tags_of(http, "virtual-network", net) == {db}


def test_a_project_has_its_own_tags_and_a_machine_those_of_its_owner(http: Http, project: list[str]) -> None:
    owner = http.call("POST", "/fqname-to-id", {"type": "project", "fq_name": project})[1]["uuid"]
    app = tag(http, "application=web", project)
    assert set_tags(http, "project", owner, application={"value": "web"}) == 200
    assert tags_of(http, "project", owner) == {app}
    machine = http.create("virtual-machine", fq_name=[f"{project[1]}-vm"])
    assert set_tags(http, "virtual_machine", machine, application={"value": "web"}) == 404
    for text, status in (("00000000-0000-4000-8000-000000000000", 404), (owner.replace("-", ""), 200)):
        assert http.update("virtual-machine", machine, perms2={"owner": text}) == 200
        assert set_tags(http, "virtual_machine", machine, application={"value": "web"}) == status
    assert tags_of(http, "virtual-machine", machine) == {app}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"obj_uuid": "NET"}, 400),
        ({"obj_type": "virtual_network"}, 400),
        ({"obj_type": "nonsense", "obj_uuid": "NET"}, 400),
        ({"obj_type": "virtual_network", "obj_uuid": "nobody"}, 404),
        ({"obj_type": "virtual_machine", "obj_uuid": "NET"}, 404),
        ({"obj_type": "virtual_network", "obj_uuid": "NET", "tier": {"add_values": ["db"]}}, 400),
        ({"obj_type": "virtual_network", "obj_uuid": "NET", "tier": {"value": ["db"]}}, 400),
        ({"obj_type": "virtual_network", "obj_uuid": "NET", "tier": {}}, 400),
        ({"obj_type": "virtual_network", "obj_uuid": "NET", "label": {"add_values": "db"}}, 400),
        ({"obj_type": "virtual_network", "obj_uuid": "NET", "tier": "db"}, 500),
        ({"obj_type": "address_group", "obj_uuid": "GROUP", "tier": {"value": "db"}}, 400),
        ({"obj_type": "address_group", "obj_uuid": "GROUP", "label": {"value": "db"}}, 200),
    ],
)
def test_a_wrong_request_for_tags(http: Http, project: list[str], body: dict[str, Any], status: int) -> None:
    net = network(http, project, "net")
    group = http.create("address-group", fq_name=[*project, "group"], parent_type="project")
    for name in ("tier=db", "label=db"):
        tag(http, name, project)
    uuids = {"NET": net, "GROUP": group}
    asked = body | ({"obj_uuid": uuids.get(body["obj_uuid"], body["obj_uuid"])} if "obj_uuid" in body else {})
    assert http.call("POST", "/set-tag", asked)[0] == status


# Virtual DNS


def virtual_dns(http: Http, name: str, **data: Any) -> str:
    told = {"domain_name": f"{name}.example", "record_order": "fixed", "default_ttl_seconds": 60, **data}
    return http.create("virtual-DNS", fq_name=[DOMAIN, name], parent_type="domain", virtual_DNS_data=told)


def test_a_virtual_dns_is_shared_with_its_domain_and_stays_while_another_one_asks_it(http: Http) -> None:
    first = virtual_dns(http, "first")
    domain = http.call("POST", "/fqname-to-id", {"type": "domain", "fq_name": [DOMAIN]})[1]["uuid"]
    share = {"tenant": f"domain:{domain}", "tenant_access": 5}
    assert http.read("virtual-DNS", first)["perms2"]["share"] == [share]
    second = virtual_dns(http, "second", next_virtual_DNS=f"{DOMAIN}:first")
    data = http.read("virtual-DNS", first)["virtual_DNS_data"]
    in_a_circle = {**data, "next_virtual_DNS": f"{DOMAIN}:second"}
    assert http.update("virtual-DNS", first, virtual_DNS_data=in_a_circle) == 403
    assert http.call("DELETE", f"/virtual-DNS/{first}")[0] == 403
    for uuid in (second, first):
        assert http.call("DELETE", f"/virtual-DNS/{uuid}")[0] == 200


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("under_score", {}, 403),
        ("v", {"domain_name": "under_score.example"}, 403),
        ("v", {"domain_name": None}, 500),
        ("v", {"record_order": "any"}, 400),
        ("v", {"record_order": None}, 500),
        ("v", {"default_ttl_seconds": -1}, 400),
        ("v", {"next_virtual_DNS": f"{DOMAIN}:nobody"}, 400),
        ("v", {"next_virtual_DNS": "fd00::53"}, 400),
        ("v", {"next_virtual_DNS": "192.0.2.53"}, 200),
    ],
)
def test_a_virtual_dns_that_cannot_be(http: Http, name: str, data: dict[str, Any], status: int) -> None:
    told = {"domain_name": "v.example", "record_order": "random", "default_ttl_seconds": 60, **data}
    body = {"fq_name": [DOMAIN, name], "parent_type": "domain", "virtual_DNS_data": told}
    assert http.call("POST", "/virtual-DNSs", {"virtual-DNS": body})[0] == status


@pytest.fixture(scope="module")
def zone(http: Http) -> str:
    virtual_dns(http, "zone")
    return "zone"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"record_type": "A", "record_name": "www", "record_data": "10.0.0.1"}, 200),
        ({"record_type": "AAAA", "record_name": "www", "record_data": "fd00::1"}, 200),
        ({"record_type": "CNAME", "record_name": "alias", "record_data": "www.zone.example"}, 200),
        ({"record_type": "PTR", "record_name": "10.0.0.1", "record_data": "www"}, 200),
        ({"record_type": "NS", "record_name": "sub", "record_data": f"{DOMAIN}:zone"}, 200),
        ({"record_type": "MX", "record_name": "zone", "record_data": "mail", "record_mx_preference": 10}, 200),
        ({"record_type": "A", "record_name": "www", "record_data": "fd00::1"}, 403),
        ({"record_type": "AAAA", "record_name": "www", "record_data": "10.0.0.1"}, 403),
        ({"record_type": "A", "record_name": "-www", "record_data": "10.0.0.1"}, 403),
        ({"record_type": "CNAME", "record_name": "alias", "record_data": "a b"}, 403),
        ({"record_type": "PTR", "record_name": "www", "record_data": "www"}, 403),
        ({"record_type": "NS", "record_name": "sub", "record_data": f"{DOMAIN}:nobody"}, 403),
        ({"record_type": "MX", "record_name": "zone", "record_data": "mail", "record_mx_preference": 65536}, 403),
        ({"record_type": "MX", "record_name": "zone", "record_data": "mail"}, 500),
        ({"record_type": "TXT", "record_name": "www", "record_data": "x"}, 400),
        ({"record_type": "A", "record_name": "www", "record_data": "10.0.0.1", "record_ttl_seconds": -1}, 403),
    ],
)
def test_a_record_has_to_fit_its_type(
    http: Http, zone: str, request: pytest.FixtureRequest, data: dict[str, Any], status: int
) -> None:
    told = {"record_class": "IN", "record_ttl_seconds": 60, **data}
    name = [DOMAIN, zone, str(request.node.name).replace(":", "-")]
    body = {"fq_name": name, "parent_type": "virtual-DNS", "virtual_DNS_record_data": told}
    assert http.call("POST", "/virtual-DNS-records", {"virtual-DNS-record": body})[0] == status


# Lists


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("is_shared==true", ["b"]),
        ("display_name==a,display_name==c", ["a", "c"]),
        ("display_name==b,is_shared==true", ["b"]),
        ("display_name==a,is_shared==true", []),
        ("router_external==false", []),
        ("nonsense==1", ["a", "b", "c"]),
        ("nonsense==1,display_name==a", []),
        ("mtu==1500", ["c"]),
        ('mtu=="1500"', []),
    ],
)
def test_filters(http: Http, project: list[str], filters: str, expected: list[str]) -> None:
    for name, more in (("a", {}), ("b", {"is_shared": True}), ("c", {"mtu": 1500})):
        http.create("virtual-network", fq_name=[*project, name], parent_type="project", **more)
    owner = http.call("POST", "/fqname-to-id", {"type": "project", "fq_name": project})[1]["uuid"]
    assert http.names(f"/virtual-networks?parent_id={owner}&filters={quote(filters)}") == expected


def test_conditions_narrow_each_other_and_unknown_uuids_give_nothing(http: Http, project: list[str]) -> None:
    a, b = network(http, project, "a"), network(http, project, "b")
    owner = http.call("POST", "/fqname-to-id", {"type": "project", "fq_name": project})[1]["uuid"]
    assert http.names(f"/virtual-networks?parent_id={owner},{a}&obj_uuids={b}") == ["b"]
    assert http.names(f"/virtual-networks?parent_id={a}&obj_uuids={b}") == []
    assert http.names("/virtual-networks?obj_uuids=xyz") == []
    name = ":".join(project)
    assert http.names(f"/virtual-networks?parent_fq_name_str={quote(name)}&parent_type=project") == ["a", "b"]


def test_pages_end_with_an_empty_one_when_the_last_was_full(http: Http, project: list[str]) -> None:
    for name in "abcd":
        network(http, project, name)
    owner = http.call("POST", "/fqname-to-id", {"type": "project", "fq_name": project})[1]["uuid"]
    marker, sizes, seen = "None", [], []
    while marker is not None:
        _, page = http.call("GET", f"/virtual-networks?parent_id={owner}&page_marker={marker}&page_limit=2")
        marker = page["marker"]
        sizes.append(len(page["virtual-networks"]))
        seen += [element["fq_name"][-1] for element in page["virtual-networks"]]
    assert sizes == [2, 2, 0]
    assert sorted(seen) == [*"abcd"]


def test_excluding_acts_by_presence_of_the_word(http: Http, project: list[str]) -> None:
    uuid = network(http, project, "net")
    _, answer = http.call("GET", f"/virtual-network/{uuid}?exclude_children=false&exclude_hrefs")
    assert "routing_instances" not in answer["virtual-network"]
    assert "href" not in answer["virtual-network"]
