"""The plugin: one dv-portgroup for every virtual network that the tenant can use.

Owns the dv-portgroups of one distributed switch that carry our mark, and the removal of TF objects whose VM is gone.
Reads virtual networks from the config API and portgroups and VMs from vCenter. Writes portgroups; deletes
virtual-machines, their interfaces and addresses that a vcenter-manager left behind; makes the tenant's project if asked
to. Runs beside the controller; several may run at once.
"""
