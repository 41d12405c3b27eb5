"""The site of the simulator's contract tests: two hosts with a vRouter VM each, one guest that is none of ours."""

from __future__ import annotations

SITE: dict[str, object] = {
    "vcenter": {"user": "administrator@vsphere.local", "password": "vcenter-password"},
    "hosts": [
        {
            "name": f"esx-{letter}",
            "user": "root",
            "password": f"password-{letter}",
            "vrouter": {
                "name": f"vrouter-{letter}",
                "smbios_uuid": f"42160000-0000-4000-8000-00000000000{letter}",
                "trunk_mac": "00:50:56:00:00:01",
                "trunk_portgroup": "tf-trunk",
            },
        }
        for letter in "ab"
    ],
    "portgroups": [{"name": "tf-trunk", "trunk": [[0, 4094]]}, {"name": "office", "vlan": 700}],
    "vms": [{"name": "office-1", "host": "esx-a", "networks": ["office"], "power": "on"}],
}
