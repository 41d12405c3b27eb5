"""What a guest gets from its router besides forwarding: address, names, metadata.

DHCP, router advertisements and neighbour discovery are answered from one packet socket on the trunk, whatever the
number of guests: the vifs have no addresses and the guests none yet. DNS and TF's link-local services are relayed from
sockets in each VRF. Nothing here forwards guests' packets, and nothing that forwards waits for it.

| module | sentence |
|---|---|
| `guest` | pure: a placed port, its network and its interface in TF → what that guest is told |
| `dhcp_options` | pure: DHCP options as TF has them (name or number, text) → bytes |
| `frames` | pure: Ethernet, IP, UDP, ICMPv6: parsed and built |
| `dhcp4`, `dhcp6`, `discovery` | pure: a message, and what the guest is told → the answer |
| `responder` | pure: a frame of a guest → the frame that answers it, and counters |
| `trunk_socket` | the packet socket |
| `relay`, `metadata` | DNS and TCP services, from the VRFs to where they are |
| `service` | the threads that run all this, and what /status says of them |
"""
