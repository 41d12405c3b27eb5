"""Who may send what: what policies come down to, our nftables tables, and the flows that are under way.

Reads and writes the kernel's nftables and conntrack, and nothing else. Begin with `rules` (what a rule is), then
`chains` (how the kernel goes through them).

| module | sentence |
|---|---|
| `rules` | policies as values, in whatever form TF had them |
| `verdict` | pure: what they decide about a packet, and by which rule |
| `chains` | pure: rules → chains and sets |
| `policy` | pure: each vif's bindings as set elements |
| `nft`, `nft_listing` | pure: all that as text for nftables; what is listed, read back |
| `tables` | the tables in the kernel: loaded, changed and read, through `libnftables` and `nf_tables` |
| `watch` | somebody else has changed the rule set |
| `flows`, `conntrack` | pure: which flows are wrong now; marking them |
| `policy_status` | what was refused and what was counted, for /status and metrics |
"""
