"""The manager in every vRouter VM: gives each guest NIC of its own ESXi a VLAN of its own, and tells TF and the agent.

Reads: the VMs of one ESXi, the marked dv-portgroups and dvPorts of one dvSwitch on vCenter, virtual networks in TF.
Writes: VLAN and block override of this host's dvPorts; virtual-machine, virtual-machine-interface and instance-ip in
TF; ports in the vRouter agent of this vRouter VM. Nothing is remembered between two starts: the VLAN of a NIC is read
from its dvPort, a vif from the agent, an address from TF.
"""
