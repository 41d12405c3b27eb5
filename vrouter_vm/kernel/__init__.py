"""Links, addresses, routes, neighbours, rules and settings of the kernel, read and written through netlink.

Carries out what `plan` has decided and decides nothing. Begin with `adapter`.

| module | sentence |
|---|---|
| `adapter` | observes all that is ours, and applies actions |
| `messages` | pure: actions → messages |
| `groups` | pure: which next hop objects stand for which route |
| `netlink`, `rtlink`, `rtroute`, `rtnexthop`, `rttc` | pure: messages, packed and parsed |
| `route_socket` | rtnetlink: many requests in one system call, and whole dumps |
| `carrier` | notices that the trunk loses its carrier |
| `mpls` | which part of the kernel carries MPLS over UDP |
| `fou` | its port, where that is fou |
| `netfilter` | the netfilter sockets, for `filters` |
| `connections`, `traffic` | what guests have open, what their vifs have counted: read when somebody asks |
"""
