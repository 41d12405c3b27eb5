"""The messages of GoBGP 4.8.0's API, generated from its .proto files by tools/gobgp-messages; do not edit.

GoBGP is licensed under the Apache License 2.0 (https://github.com/osrg/gobgp/blob/v4.8.0/LICENSE), and so are these.
Called by `bgp` only.
"""
