"""Client of the Tungsten Fabric / OpenSDN config API: the real controller's or the embedded one's.

`client` speaks HTTP and JSON, `model` turns JSON into typed values, `networks` answers questions about virtual
networks, `watch` wakes a loop when something changes, `faults` says which HTTP status is which error of ours.
"""
