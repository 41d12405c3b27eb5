"""Links, addresses, routes, neighbours, rules and settings of the kernel, read and written through netlink.

Carries out what `plan` has decided and decides nothing. Begin with `adapter`.

| module | sentence |
|---|---|
| `adapter` | observes all that is ours, and applies actions |
| `netlink`, `rtlink`, `rtroute` | pure: messages, packed and parsed: in general, about devices, about routes |
| `route_socket` | rtnetlink: many requests in one system call, and whole dumps |
| `fou` | taking in MPLS over UDP |
| `netfilter` | the netfilter sockets, for `filters` |
| `connections`, `traffic` | what guests have open, what their vifs have counted: read when somebody asks |
"""
