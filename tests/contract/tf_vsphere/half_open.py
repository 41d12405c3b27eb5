"""A watch whose connections fall silent without a word, in a network namespace of its own.

Run by `test_half_open` as `unshare --net python -m tests.contract.tf_vsphere.half_open FOLDER`; prints one JSON object.
Packets of the connections that exist are dropped in both directions, as by a firewall that has forgotten them: the peer
acknowledges nothing, no connection is reset, and new ones are let through.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pyVmomi import vim

from lab.vsphere_admin import VsphereAdmin
from tests.contract.vcenter import Vcenter
from tf_reconcile.errors import Transient
from tf_vsphere.collector import Step, filter_spec
from tf_vsphere.dvswitch import find_dvswitch
from tf_vsphere.session import connect
from tf_vsphere.watch import PropertyWatch

TIMEOUT_S = 2.0
PATIENCE_S = 60.0
LATE = "made in the silence"


def main(folder: Path) -> None:
    """Follow, fall silent, change something, and tell after how many seconds the watch noticed and knew it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    changed = threading.Event()
    with Vcenter(folder) as vcenter:
        session = connect(vcenter.settings(timeout_s=TIMEOUT_S), "test.yaml", "vcenter")
        switch = find_dvswitch(session, "dvs-tf").managed_object
        steps = {"portgroups": Step(vim.DistributedVirtualSwitch, "portgroup")}
        spec = filter_spec([switch], {vim.dvs.DistributedVirtualPortgroup: ("name",)}, steps=steps)
        watch = PropertyWatch(session, lambda: [spec], changed.set, name="portgroups")
        watch.start()
        if not watch.wait_until_complete(PATIENCE_S):
            raise TimeoutError("no first answer")
        changed.clear()
        vcenter.forget_calls()
        silence(vcenter.port)
        began_s = time.monotonic()
        with VsphereAdmin.connect(vcenter.simulator) as admin:
            admin.create_portgroup(LATE)
        wait_for(changed, lambda: names_of(watch) is None)
        noticed_s = time.monotonic() - began_s
        wait_for(changed, lambda: LATE in (names_of(watch) or ()))
        known_s = time.monotonic() - began_s
        calls = dict(vcenter.calls())
        watch.stop()
        session.close()
    sys.stdout.write(json.dumps({"noticed_s": noticed_s, "known_s": known_s, "calls": calls}) + "\n")


def silence(port: int) -> None:
    """Drop whatever the connections that there are to `port` send from now on, in both directions."""
    listed = subprocess.run(["ss", "-Htn", "state", "established"], capture_output=True, text=True, check=True).stdout
    pairs = [[int(end.rpartition(":")[2]) for end in line.split()[2:4]] for line in listed.splitlines()]
    clients = ", ".join(str(own) for own, peer in pairs if peer == port)
    rules = f"""table inet silence {{
        chain input {{
            type filter hook input priority 0;
            tcp dport {port} tcp sport {{ {clients} }} drop
            tcp sport {port} tcp dport {{ {clients} }} drop
        }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def names_of(watch: PropertyWatch) -> set[str] | None:
    """Return the portgroups that the watch shows; None while it shows nothing."""
    try:
        return {seen.properties["name"] for seen in watch.snapshot().values()}
    except Transient:
        return None


def wait_for(changed: threading.Event, condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, which is looked at after every change that the watch tells of."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if not changed.wait(deadline_s - time.monotonic()):
            raise TimeoutError("the watch tells nothing")
        changed.clear()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
