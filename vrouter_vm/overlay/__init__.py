"""Who has which guest address: told to other hosts and heard from them, as BGP routes.

Reads and writes the BGP speaker, whose API it is the only one to know, and the cache of other hosts' routes. What the
kernel should hold for them is `wanted.tunnels`. Begin with `exchange`.

| module | sentence |
|---|---|
| `exchange` | tells the speaker our routes, keeps what it hears, on a thread of its own |
| `bgp` | the speaker's API; its messages are in `gobgp`, generated |
| `encode` | pure: our routes in these messages |
| `wire` | pure: routes as BGP has them on the wire |
| `evpn` | pure: routes as EVPN has them, and who wins a prefix |
| `rib` | pure: all routes by route target, and the one that each VRF follows |
| `remote` | pure: how long a route is believed that nobody confirms |
| `audit` | pure: whether the speaker's watch still tells everything |
| `limits` | pure: how near each peer is to the number of routes that it may tell |
| `records` | pure: what is kept in files for the next run |
| `status` | what is shown of all this |
| `mtu` | pure: how large a packet may be that goes to another host |
| `paths` | whether such packets arrive |
"""
