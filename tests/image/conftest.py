"""The site around one vRouter VM: a simulated vCenter with its ESXi, the config API and the plugin on this machine, the
VM in QEMU. One boot of it serves all tests, which are in the order of the VM's life.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
import yaml

from images.build import build_debian
from images.payload import PROJECT
from lab.controller import Controller
from lab.simulator import Simulator
from lab.site import DVSWITCH, TENANT, TRUNK_PORTGROUP
from lab.vsphere_admin import VsphereAdmin
from tests.image.frames import Trunk
from tests.image.machine import ADDRESS, HOST, VrouterVm, make_config_drive, make_key, missing_tools
from tests.image.site import SECRETS, VlanSite

TRUNK_MAC: Final = "00:50:56:00:00:01"


@pytest.fixture(scope="session")
def _tools() -> None:
    """Skip, with the reason, where the VM cannot be made; in CI that is a failure."""
    reason = missing_tools()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"the image cannot be tested here: {reason}", pytrace=False)
    pytest.skip(f"the image cannot be tested here: {reason}")


@pytest.fixture(scope="session")
def image(_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with disk, kernel and initrd: built from the sources as they are, unless TF_IMAGE names one."""
    if given := os.environ.get("TF_IMAGE"):
        return Path(given)
    folder = tmp_path_factory.mktemp("image")
    build_debian(folder)
    return folder


@pytest.fixture(scope="session")
def site(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VlanSite]:
    """The running site; its VM is off."""
    folder = tmp_path_factory.mktemp("site")
    smbios_uuid = str(uuid.uuid4())
    with ExitStack() as stack:
        simulator = stack.enter_context(Simulator(_simulated(smbios_uuid)))
        admin = stack.enter_context(VsphereAdmin.connect(simulator))
        controller = stack.enter_context(Controller(token=SECRETS["tf-token"]))
        stack.enter_context(_plugin(folder, simulator, controller.url))
        trunk = stack.enter_context(Trunk().connected())
        key_file, public_key = make_key(folder)
        drive = folder / "config-drive.iso"
        make_config_drive(
            drive,
            {
                "vrouter-vm.yaml": yaml.safe_dump(_settings(simulator, controller.url, public_key)),
                **{f"secrets/{name}": f"{secret}\n" for name, secret in SECRETS.items()},
            },
        )
        disk = folder / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image / "disk.raw"), str(disk)],
            check=True,
        )
        vm = VrouterVm(
            folder=folder,
            disk=disk,
            kernel=image / "kernel",
            initrd=image / "initrd",
            smbios_uuid=smbios_uuid,
            trunk_mac=TRUNK_MAC,
            trunk_ports=(trunk.port, trunk.vm_port),
            key_file=key_file,
            config_drive=drive,
        )
        stack.callback(vm.cut_power)
        yield VlanSite(simulator=simulator, admin=admin, controller=controller, trunk=trunk, vm=vm)
        if artifacts := os.environ.get("TF_IMAGE_ARTIFACTS"):
            shutil.copy(vm.console, artifacts)


def _simulated(smbios_uuid: str) -> dict[str, object]:
    return {
        "vcenter": {"listen": "127.0.0.1:0", "user": "tf@vsphere.local", "password": SECRETS["vcenter-password"]},
        "control": "127.0.0.1:0",
        "dvs": DVSWITCH,
        "hosts": [
            {
                "name": "esx-a",
                "listen": "127.0.0.1:0",
                "user": "tf-vrouter",
                "password": SECRETS["esxi-password"],
                "vrouter": {
                    "name": "vrouter-a",
                    "smbios_uuid": smbios_uuid,
                    "trunk_mac": TRUNK_MAC,
                    "trunk_portgroup": TRUNK_PORTGROUP,
                },
            }
        ],
        "portgroups": [{"name": TRUNK_PORTGROUP, "trunk": [[0, 4094]]}],
        "vms": [],
    }


def _settings(simulator: Simulator, url: str, public_key: str) -> dict[str, object]:
    (esxi,) = simulator.esxi
    return {
        # The endpoints listen on this machine's loopback, which the VM sees as HOST.
        "esxi": {"host": HOST, "port": esxi.port, "user": esxi.user, "thumbprint_sha256": esxi.sha256},
        "vcenter": {
            "host": HOST,
            "port": simulator.vcenter.port,
            "user": simulator.vcenter.user,
            "thumbprint_sha256": simulator.vcenter.sha256,
        },
        "dvswitch": DVSWITCH,
        "tf": {"servers": [url.replace("127.0.0.1", HOST)]},
        "management": {
            "address": f"{ADDRESS}/24",
            "gateway": HOST,
            "hostname": "vrouter-a",
            "authorized_keys": [public_key],
        },
        "underlay": {"address": "192.0.2.31/24"},
        "manager": {"vlan": {"ranges": [[101, 400]]}},
    }


@contextmanager
def _plugin(folder: Path, simulator: Simulator, url: str) -> Iterator[None]:
    """The plugin as a process of this machine, while inside."""
    for name in ("vcenter-password", "tf-token"):
        (folder / name).write_text(f"{SECRETS[name]}\n")
    config = folder / "vcenter-plugin.yaml"
    settings = {
        "vcenter": {
            "host": "127.0.0.1",
            "port": simulator.vcenter.port,
            "user": simulator.vcenter.user,
            "password_file": str(folder / "vcenter-password"),
            "thumbprint_sha256": simulator.vcenter.sha256,
        },
        "dvswitch": DVSWITCH,
        "tf": {"servers": [url], "token_file": str(folder / "tf-token")},
        "tenant": {"fq_name": ":".join(TENANT), "create": True},
        "status": {"listen": "127.0.0.1:0"},
    }
    config.write_text(yaml.safe_dump(settings))
    with (folder / "plugin.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vcenter_plugin", "-c", str(config)], cwd=PROJECT, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
