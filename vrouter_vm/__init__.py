"""The vRouter agent: the Linux side of one host's forwarding.

Owns the VLAN sub-interfaces of its trunk NIC, one VRF per virtual network, their addresses, host routes and neighbours,
and its own nftables tables. Reads the ports that the manager posts on the port API (kept in port files) and the virtual
networks of those ports in TF. Writes the kernel, the port files and a cache of the networks; never TF or vSphere.

| package | sentence |
|---|---|
| `tf` | what TF's config API says of the ports here: networks, interfaces, policies, names, BGP neighbours |
| `wanted` | pure: what should exist on this host, made of all that is known |
| `filters` | who may send what: policies as rules, as nftables text, in the kernel, and asked of one packet |
| `overlay` | who has which address: this host's routes to the BGP speaker, other hosts' routes from it |
| `kernel` | links, addresses, routes and neighbours, read and written through netlink |
| `guest_services` | what a guest gets besides forwarding: address, names, metadata |

Here are the files that every daemon has, the values that all packages share (`model`, `kernel_model`, `overlay_model`,
`names`, `prefixes`, `actions`, `claims`), and what the agent is asked and told over HTTP (`port_api`, `trace`,
`status`, `metrics`). Begin with `reconciler`, then `desired` and `plan`. Imports between the packages point one way, as
pyproject.toml has it.
"""
