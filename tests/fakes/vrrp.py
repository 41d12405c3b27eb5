"""keepalived in a guest's namespace, set up as docs/operations/virtual-ips.md has it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def keepalived(
    namespace: str, folder: Path, *, priority: int, own: str, peer: str, shared: Sequence[str]
) -> Iterator[None]:
    """Let a guest be one of two that share addresses, the first of them IPv4; at the end it says that it gives them up.

    An instance has addresses of one IP version; those of the other are "excluded" from what it tells its peer.
    """
    first, *more = shared
    lines = [f"        {address} dev eth0" for address in more]
    config = folder / f"{namespace}.conf"
    config.write_text(
        "\n".join(
            [
                f"global_defs {{\n    router_id {namespace}\n}}",
                "vrrp_instance shared {",
                "    interface eth0\n    virtual_router_id 7\n    state BACKUP\n    advert_int 1",
                "    garp_master_refresh 30",
                f"    priority {priority}\n    unicast_src_ip {own}\n    unicast_peer {{\n        {peer}\n    }}",
                f"    virtual_ipaddress {{\n        {first} dev eth0\n    }}",
                *(["    virtual_ipaddress_excluded {", *lines, "    }"] if lines else []),
                "}\n",
            ]
        )
    )
    pids = [f"--{kind}={folder}/{namespace}.{kind}" for kind in ("pid", "vrrp_pid")]
    command = ["ip", "netns", "exec", namespace, "keepalived", "-n", "-P", "-l", "-f", str(config), *pids]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
