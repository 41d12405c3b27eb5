"""The vRouter VM under QEMU: its disk, its three NICs, its power, its guestinfo, and a person's way in.

To the VM it is one of VMware's: by the vendor that its firmware names, which is what systemd and first boot go by, and
with the script `vmtoolsd` of this folder where VMware's tool asks the hypervisor.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.image.guestinfo import Guestinfo
from tests.image.underlay import Underlay

# The management network is QEMU's own: the machine the tests run on is HOST in it, and SSH to the VM is forwarded.
NETWORK, HOST, ADDRESS = "198.51.100.0/24", "198.51.100.2", "198.51.100.31"
FAKE_TOOL = Path(__file__).with_name("vmtoolsd")
STOP_S = 60.0
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


class MachineError(AssertionError):
    """The VM did not do what it must; the text has the end of its console."""


def free_tcp_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(kw_only=True)
class VrouterVm:
    """One VM. `trunk_ports` are the UDP ports of the test's end and the VM's end of the trunk."""

    folder: Path
    disk: Path
    kernel: Path
    initrd: Path
    smbios_uuid: str
    trunk_mac: str
    trunk_ports: tuple[int, int]
    key_file: Path
    underlay: Underlay
    memory_mib: int
    guestinfo: Guestinfo | None = None
    config_drive: Path | None = None
    is_isolated: bool = False
    ssh_port: int = field(default_factory=free_tcp_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> Path:
        """What the VM wrote to its serial console, over all starts."""
        return self.folder / "console.log"

    @property
    def command(self) -> list[str]:
        """QEMU's command line. The NICs are out of order on purpose: the trunk is the first on the bus."""
        here, there = self.trunk_ports
        isolation = "on" if self.is_isolated else "off"
        management = f"user,id=mgmt,net={NETWORK},host={HOST},restrict={isolation}"
        management += f",hostfwd=tcp:127.0.0.1:{self.ssh_port}-{ADDRESS}:22"
        medium = "" if self.config_drive is None else f",file={self.config_drive},format=raw"
        return [
            "qemu-system-x86_64",
            *("-M", "q35,usb=off,vmport=off,hpet=off", "-accel", "tcg,thread=multi,tb-size=512"),
            *("-cpu", "qemu64,hypervisor=off" if self.guestinfo else "qemu64"),
            *("-smp", "2", "-m", str(self.memory_mib), "-uuid", self.smbios_uuid, *self._guestinfo_port),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-kernel", str(self.kernel), "-initrd", str(self.initrd)),
            "-append",
            "root=LABEL=root ro console=ttyS0 quiet systemd.show_status=1 mitigations=off nokaslr no_timer_check "
            "random.trust_cpu=on",
            *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
            *("-drive", f"file={self.disk},if=virtio,format=qcow2,cache=writeback"),
            *("-drive", f"if=none,id=medium,media=cdrom,readonly=on{medium}", "-device", "ide-cd,id=cd,drive=medium"),
            *("-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off"),
            *("-device", "virtio-rng-pci"),
            *("-netdev", f"socket,id=trunk,udp=127.0.0.1:{here},localaddr=127.0.0.1:{there}"),
            *("-device", f"virtio-net-pci,netdev=trunk,mac={self.trunk_mac},addr=4"),
            *("-netdev", management, "-device", "virtio-net-pci,netdev=mgmt,mac=52:54:00:00:00:01,addr=5"),
            *("-netdev", f"tap,id=underlay,ifname={self.underlay.tap},script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=underlay,mac=52:54:00:00:00:02,addr=6"),
        ]

    @property
    def _guestinfo_port(self) -> list[str]:
        if self.guestinfo is None:
            return []
        return [
            *("-smbios", "type=1,manufacturer=VMware,, Inc.,product=VMware20,,1"),
            *("-chardev", f"socket,id=guestinfo,path={self.guestinfo.path}", "-device", "virtio-serial-pci"),
            *("-device", "virtserialport,chardev=guestinfo,name=guestinfo"),
        ]

    def power_on(self) -> None:
        """Start the VM."""
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.underlay.plug()
        except AssertionError:
            self.check_running()
            raise

    def cut_power(self) -> None:
        """End the VM as a power cut does: nothing in it gets a chance to finish."""
        self.hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def detach_config_drive(self) -> None:
        """Take the config drive's medium out, as an admin does in the vSphere Client (QEMU's machine protocol)."""
        with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw", encoding="utf-8") as lines:
            monitor.settimeout(STOP_S)
            monitor.connect(str(self.folder / "qmp"))
            lines.readline()
            for command in (
                {"execute": "qmp_capabilities"},
                {"execute": "eject", "arguments": {"id": "cd", "force": True}},
            ):
                lines.write(json.dumps(command) + "\n")
                lines.flush()
                while not (answer := json.loads(lines.readline())).keys() & {"return", "error"}:
                    pass
                if "error" in answer:
                    raise MachineError(f"QEMU: {answer['error']}")
        self.config_drive = None

    def shell(self, command: str, *, timeout_s: float = 60.0, is_checked: bool = True) -> str:
        """Return what `command` prints in the VM, run as root by the account that the settings gave a key to."""
        return self.pipe(command, b"", timeout_s=timeout_s, is_checked=is_checked).decode(errors="replace")

    def pipe(self, command: str, given: bytes, *, timeout_s: float = 60.0, is_checked: bool = True) -> bytes:
        """The same with `given` on its standard input, and bytes as they are."""
        self._connect(timeout_s=timeout_s)
        done = subprocess.run(
            [*self._ssh, f"sudo -n sh -c {shlex.quote(command)}"],
            capture_output=True,
            check=False,
            timeout=timeout_s,
            input=given,
        )
        if is_checked and done.returncode != 0:
            words = (done.stderr or done.stdout).decode(errors="replace")
            raise MachineError(f"{command!r} gave {done.returncode}: {words}\n{self.console_tail()}")
        return done.stdout

    @property
    def _ssh(self) -> list[str]:
        """The command to the VM. One connection serves all calls: a key exchange takes seconds under emulation."""
        options = {
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "LogLevel": "ERROR",
            "ControlPath": str(self.folder / "ssh"),
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-i", str(self.key_file), "-p", str(self.ssh_port), *words, "tfadmin@127.0.0.1"]

    def _connect(self, *, timeout_s: float) -> None:
        """Open the shared connection unless it is there. It stays in the background, so it must not hold our pipes."""
        if subprocess.run([*self._ssh, "-O", "check"], capture_output=True, check=False).returncode == 0:
            return
        log = self.folder / "ssh.log"
        log.unlink(missing_ok=True)
        quiet = subprocess.DEVNULL
        command = [*self._ssh, "-M", "-N", "-f", "-E", str(log)]
        done = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise MachineError(f"no SSH connection: {log.read_text(errors='replace') if log.exists() else ''}")

    def hang_up(self) -> None:
        """End the connection that the calls share; the next one makes a new one."""
        subprocess.run([*self._ssh, "-O", "exit"], capture_output=True, check=False)

    def wait_for_shell(self, *, timeout_s: float) -> None:
        """Wait until a person could log in."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.shell("true", timeout_s=30.0)
            except (MachineError, subprocess.TimeoutExpired) as error:
                self.check_running()
                if time.monotonic() > deadline:
                    raise MachineError(f"no log-in within {timeout_s} s\n{self.console_tail()}") from error
            else:
                return

    def check_running(self) -> None:
        """Raise if QEMU has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            log = (self.folder / "qemu.log").read_text(errors="replace")
            raise MachineError(f"QEMU has ended: {log[-2000:]}\n{self.console_tail()}")

    def last_words(self) -> str:
        """Return what the VM said last: the daemons' journal if a person could still log in, and the console."""
        try:
            units = "-u 'vrouter-*' -u vcenter-manager -u NetworkManager"
            journal = self.shell(f"journalctl --no-pager -b -n 60 {units}", timeout_s=30.0)
        except (MachineError, subprocess.TimeoutExpired) as error:
            journal = f"no log-in for the journal: {error}"
        return f"--- the journal ends with\n{journal}\n{self.console_tail()}"

    def console_tail(self) -> str:
        """Return the end of the console."""
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return f"--- the console ends with\n{text[-4000:]}"


def make_disk(disk: Path, *, base: Path, has_guestinfo: bool) -> None:
    """Write a disk (qcow2) that begins as `base`; with guestinfo it has the tool that asks the test for it.

    VMware Tools' own daemon is off there: it does not start without VMware's hypervisor.
    """
    if has_guestinfo:
        raw = disk.with_suffix(".raw")
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(base), str(raw)], check=True)
        edits = [
            f"write {FAKE_TOOL} /usr/local/bin/vmtoolsd",
            "set_inode_field /usr/local/bin/vmtoolsd mode 0100755",
            "symlink /etc/systemd/system/open-vm-tools.service /dev/null",
        ]
        done = subprocess.run(
            ["debugfs", "-w", "-f", "-", str(raw)],
            input="".join(f"{edit}\n" for edit in edits),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PATH": SYSTEM_PATH},
        )
        complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs ")]
        assert not complaints, complaints
        base = raw
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(disk)], check=True)


def make_key(folder: Path) -> tuple[Path, str]:
    """Make an SSH key; return its file and the public line."""
    file = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file, file.with_suffix(".pub").read_text().strip()


def make_config_drive(target: Path, files: Mapping[str, str]) -> None:
    """Write an ISO 9660 volume labelled TFVROUTER with `files`."""
    content = target.with_suffix(".d")
    for name, text in files.items():
        path = content / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(
        ["genisoimage", "-quiet", "-V", "TFVROUTER", "-R", "-J", "-o", str(target), str(content)],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(content)


def missing_tools() -> str | None:
    """Return what the machine lacks for these tests, None if nothing."""
    tools = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "genisoimage", "ssh", "ssh-keygen", "mke2fs", "debugfs")
    absent = [tool for tool in tools if shutil.which(tool, path=SYSTEM_PATH) is None]
    if absent:
        return f"commands not found: {', '.join(absent)}"
    return None if os.geteuid() == 0 else "not root: a root file system cannot be made"
