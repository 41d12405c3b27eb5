"""Pure: what should exist on this host, made of ports, networks, interfaces, policies and other hosts' routes.

Reads values and writes values: `desired` tells it what has changed and takes what comes out, `plan` compares that with
the kernel. Begin with `state`.

| module | sentence |
|---|---|
| `state` | all of it, kept up to date by what changes |
| `facts` | what should exist, by key, and what was wanted of each before it changed |
| `places`, `placing` | where each port is served, or why it is not |
| `links` | a network, a port → devices, addresses, routes, neighbours |
| `leads` | the route by which each prefix is reached, and the far ends that routes lead to |
| `ways` | which of several ports that offer a way to a prefix counts |
| `policing` | which lists and member sets policies need in the kernel |
| `tunnels` | other hosts' routes → what the kernel holds to reach them |
"""
