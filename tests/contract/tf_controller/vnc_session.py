"""A working day of TF's own client, `vnc_api`, against the server at argv[1]:argv[2]. Run by test_vnc_client in a
process of its own: it brings gevent along.
"""

from __future__ import annotations

import importlib
import sys

vnc_api = importlib.import_module("vnc_api.vnc_api")
refused = importlib.import_module("vnc_api.exceptions")

api = vnc_api.VncApi(api_server_host=sys.argv[1], api_server_port=sys.argv[2])

project = vnc_api.Project("vnc", parent_obj=vnc_api.Domain("default-domain"))
api.project_create(project)
ipam = vnc_api.NetworkIpam("ipam", parent_obj=project)
api.network_ipam_create(ipam)
network = vnc_api.VirtualNetwork("net", parent_obj=project)
subnet = vnc_api.IpamSubnetType(subnet=vnc_api.SubnetType("10.9.0.0", 24))
network.add_network_ipam(ipam, vnc_api.VnSubnetsType([subnet]))
api.virtual_network_create(network)
network = api.virtual_network_read(fq_name=["default-domain", "vnc", "net"])
assert network.get_network_ipam_refs()[0]["attr"].ipam_subnets[0].default_gateway == "10.9.0.254"

machine = vnc_api.VirtualMachine("vm1")
api.virtual_machine_create(machine)
interface = vnc_api.VirtualMachineInterface("vmi", parent_obj=project)
interface.add_virtual_network(network)
interface.add_virtual_machine(machine)
api.virtual_machine_interface_create(interface)
address = vnc_api.InstanceIp("ip1")
address.add_virtual_network(network)
address.add_virtual_machine_interface(interface)
api.instance_ip_create(address)
assert api.instance_ip_read(id=address.uuid).get_instance_ip_address() == "10.9.0.252"

group = vnc_api.SecurityGroup("sg", parent_obj=project)
api.security_group_create(group)
interface = api.virtual_machine_interface_read(id=interface.uuid)
assert [ref["to"] for ref in interface.get_instance_ip_back_refs()] == [["ip1"]]
interface.add_annotations(vnc_api.KeyValuePair("k", "v"))
interface.add_security_group(group)
api.virtual_machine_interface_update(interface)
interface = api.virtual_machine_interface_read(id=interface.uuid)
assert interface.get_annotations().key_value_pair[0].value == "v"
assert interface.get_security_group_refs()[0]["uuid"] == group.uuid
interface.del_security_group(group)
interface.del_annotations("k")
api.virtual_machine_interface_update(interface)
interface = api.virtual_machine_interface_read(id=interface.uuid)
assert not interface.get_annotations()
assert not interface.get_security_group_refs()

label = vnc_api.Tag(tag_type_name="label", tag_value="red", parent_obj=project)
api.tag_create(label)
api.set_tags(network, {"label": {"add_values": ["red"]}})
network = api.virtual_network_read(id=network.uuid)
assert [ref["uuid"] for ref in network.get_tag_refs()] == [label.uuid]
api.unset_tag(network, "label")
network = api.virtual_network_read(id=network.uuid)
assert not network.get_tag_refs()
api.tag_delete(id=label.uuid)

assert [found["uuid"] for found in api.virtual_networks_list(parent_id=project.uuid)["virtual-networks"]] == [
    network.uuid
]
assert [found.uuid for found in api.virtual_machines_list(obj_uuids=[machine.uuid] * 30, detail=True)] == [machine.uuid]
listed = api.virtual_machine_interfaces_list(back_ref_id=network.uuid, filters={"display_name": "vmi"})
assert [found["uuid"] for found in listed["virtual-machine-interfaces"]] == [interface.uuid]
assert api.fq_name_to_id("virtual_network", ["default-domain", "vnc", "net"]) == network.uuid
assert api.id_to_fq_name_type(network.uuid) == (["default-domain", "vnc", "net"], "virtual-network")
assert api.virtual_network_ip_alloc(network, count=2) == ["10.9.0.251", "10.9.0.250"]
api.virtual_network_ip_free(network, ["10.9.0.250"])
assert api.virtual_network_ip_alloc(network, count=1) == ["10.9.0.250"]

try:
    api.virtual_network_delete(id=network.uuid)
except refused.RefsExistError:
    sys.stdout.write("refused while referred to\n")
api.instance_ip_delete(id=address.uuid)
api.virtual_machine_interface_delete(id=interface.uuid)
api.virtual_machine_delete(id=machine.uuid)
api.virtual_network_delete(id=network.uuid)
api.network_ipam_delete(id=ipam.uuid)
api.security_group_delete(id=group.uuid)
api.project_delete(id=project.uuid)
try:
    api.project_read(id=project.uuid)
except refused.NoIdError:
    sys.stdout.write("gone\n")
