"""The vRouter agent: the Linux side of one host's forwarding.

Owns the VLAN sub-interfaces of its trunk NIC, one VRF per virtual network, their addresses, host routes and neighbours,
and its own nftables tables. Reads the ports that the manager posts on the port API (kept in port files) and the virtual
networks of those ports in TF. Writes the kernel, the port files and a cache of the networks; never TF or vSphere.
"""
