"""What TF's config API says that concerns this host's ports.

Reads TF, writes cache files with the last answers and nothing else. Each feed asks on a thread of its own and wakes the
reconciler, which never waits for TF. TF's objects end here: what leaves are frozen values. Begin with `network_feed`, a
whole feed in one module.

| module | sentence |
|---|---|
| `network_feed` | the ports' networks, with `subnets`, `route_tables` and `route_targets` (pure) |
| `interface_feed` | the ports' interfaces: `interface_source` asks, `interface_settings` (pure) reads |
| `policies` | pure: all policies of such an answer → lists of rules, and each guest's layers of them |
| `security_groups`, `network_policies`, `firewalls` | pure: the three forms in which TF has policies |
| `addresses`, `rule_parts` | pure: what their rules are made of |
| `catalogue`, `members`, `problems` | pure: objects by name; who is in which set; what was refused |
| `dns_feed` | virtual DNS, read by `virtual_dns` (pure) |
| `peer_feed` | BGP neighbours |
"""
