"""Measures what the sizes of the vRouter VM are made of: `python -m tests.image.measure_sizes FOLDER 50 200 1000`.

FOLDER is what `images/build debian` wrote. A VM boots, gets so many ports, one number after the other, and is measured
when all of them are forwarded for: a line of JSON each. The manager is off meanwhile; `python -m bench memory` has its
share, without emulation. Needs root and what the tests need.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from images.ovf import SIZES
from lab.networks import create_network
from lab.site import TENANT
from tests.image.site import VlanSite, running_site
from tf_api.client import ConfigApi
from tf_api.model import reference

BOOT_S: Final = 900.0
SETTLE_S: Final = 3600.0
NETWORKS: Final = 10
"""So many virtual networks the guests of a host are in."""

# Each look from outside costs the emulated VM a log-in's worth of work, so it does the waiting itself.
VIFS_ARE_THERE: Final = "until [ $(ls /sys/class/net | grep -c '^trunk[.]') -ge {number} ]; do sleep 2; done"

# Emulated, a pass over a thousand vifs may take longer than the unit allows for on hardware.
UNHURRIED: Final = """
folder=/run/systemd/system/vrouter-agent.service.d
mkdir -p $folder
printf '[Service]\\nTimeoutStartSec=infinity\\nWatchdogSec=infinity\\n' >$folder/unhurried.conf
systemctl daemon-reload
"""

_FIRST_VLAN: Final = 101


def measure(site: VlanSite, numbers: Sequence[int], *, networks: Sequence[str]) -> Iterator[dict[str, float]]:
    """Yield what the VM uses with no guest NIC, and with so many, in MiB."""
    site.make_vm("sizes", size=SIZES[-1])
    site.vm.power_on()
    site.vm.wait_for_shell(timeout_s=BOOT_S)
    site.vm.shell("systemctl mask --runtime --now vcenter-manager", timeout_s=BOOT_S)
    site.vm.shell(UNHURRIED, timeout_s=BOOT_S)
    site.vm.shell("systemctl start vrouter-agent", timeout_s=SETTLE_S)
    none = memory(site)
    yield {"nics": 0, **none}
    ports = list(make_ports(site.controller.api(), max(numbers), networks))
    for number in sorted(numbers):
        files = tar_of({name: json.dumps(port) for name, port in ports[:number]})
        site.vm.shell("systemctl stop vrouter-agent", timeout_s=BOOT_S)
        site.vm.pipe("tar -C /var/lib/vrouter-agent/ports -x", files, timeout_s=BOOT_S)
        began = time.monotonic()
        site.vm.shell("systemctl start vrouter-agent", timeout_s=SETTLE_S)
        site.vm.shell(VIFS_ARE_THERE.format(number=number), timeout_s=SETTLE_S)
        seconds = round(time.monotonic() - began, 1)
        site.vm.shell(f"udevadm settle --timeout={SETTLE_S:.0f}", timeout_s=SETTLE_S)
        found = memory(site)
        more = {f"{name} for them": round(found[name] - none[name], 1) for name in ("used", "kernel")}
        yield {"nics": number, **found, **more, "start to forwarding, wall s": seconds}


def memory(site: VlanSite) -> dict[str, float]:
    """Return MiB: `used` by the whole system without its page cache, `kernel` of it, and each daemon's own."""
    fields = dict(line.split(":") for line in site.vm.shell("cat /proc/meminfo", timeout_s=BOOT_S).splitlines())
    kib = {name: int(value.split()[0]) for name, value in fields.items()}
    found = {
        "used": kib["MemTotal"] - kib["MemFree"] - kib["Buffers"] - kib["Cached"] - kib["SReclaimable"],
        "kernel": kib["SUnreclaim"] + kib["PageTables"] + kib["Percpu"] + kib["VmallocUsed"],
    }
    for unit in ("vrouter-agent", "vrouter-speaker"):
        resident = f"grep VmRSS /proc/$(systemctl show -p MainPID --value {unit})/status || echo VmRSS: 0 kB"
        found[unit] = int(site.vm.shell(resident, timeout_s=BOOT_S).split()[1])
    return {name: round(value / 1024, 1) for name, value in found.items()}


def make_ports(api: ConfigApi, number: int, networks: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """Make interfaces in TF; yield the name and content of each one's port file."""
    project = api.fqname_to_uuid("project", TENANT)
    assert project is not None
    for index in range(number):
        vn_uuid = networks[index % len(networks)]
        name = f"nic-{index}"
        vmi = api.create(
            "virtual-machine-interface",
            {
                "fq_name": [*TENANT, name],
                "parent_type": "project",
                "virtual_network_refs": [reference(vn_uuid, (*TENANT, f"net-{index % len(networks)}"))],
            },
        )
        host = index // len(networks) + 10
        yield (
            vmi,
            {
                "id": vmi,
                "instance-id": vmi,
                "vn-id": vn_uuid,
                "vm-project-id": project,
                "display-name": name,
                "system-name": vmi,
                "ip-address": f"10.{index % len(networks)}.{host >> 8}.{host & 255}",
                "ip6-address": "::",
                "mac-address": f"00:50:56:aa:{index >> 8:02x}:{index & 255:02x}",
                "type": 2,
                "rx-vlan-id": _FIRST_VLAN + index,
                "tx-vlan-id": _FIRST_VLAN + index,
                "link-state": 1,
            },
        )


def tar_of(files: dict[str, str]) -> bytes:
    """Return a tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def main(arguments: Sequence[str]) -> int:
    """Measure each number that is asked for."""
    image, numbers = Path(arguments[0]), [int(text) for text in arguments[1:]]
    with TemporaryDirectory(prefix="sizes-") as name, running_site(Path(name), image=image) as site:
        api = site.controller.api()
        site.wait_for(lambda: api.fqname_to_uuid("project", TENANT) is not None, "the tenant", timeout_s=60)
        networks = [create_network(api, f"net-{index}", IPv4Network(f"10.{index}.0.0/16")) for index in range(NETWORKS)]
        for found in measure(site, numbers, networks=networks):
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
