"""A throw-away virtual machine on the host's own file system, for kernels that cannot carry the lab.

    python -m lab.vm prepare                    fetch and unpack the kernel
    python -m lab.vm check                      can the running kernel do without the machine? exit 0 if so
    python -m lab.vm run [options] -- COMMAND   run COMMAND where the lab's kernel features are: here, or in the machine

The machine boots in about three seconds under QEMU (KVM where it works, else software emulation), sees the host's root
file system read-only with a tmpfs on top, runs one command as root in the same folder, streams its output and
ends with it. Only the folder in `TFV_SHARED` reaches the host. Exit status: the command's; 124 after the time-out; 125
if the machine died. The standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from lab.initramfs import initramfs
from lab.kernel import GuestKernel, KernelError, missing_feature, prepare_kernel

PROJECT = Path(__file__).resolve().parent.parent
CACHE = PROJECT / ".cache"
EXIT_TIMEOUT = 124
EXIT_DIED = 125
CONSOLE_TAIL = 3000
PARTING_S = 15.0

# Passed into the machine when set outside. No secret is among them.
PASSED_ENVIRONMENT = ("CI", "GOBGPD_BINARY", "PYTEST_ADDOPTS", "TERM", "VCSIM_BINARY")

_START = """
export PATH={path} HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 TFV_GUEST=1 TFV_SHARED={shared} {environment}
hostname lab; ip link set lo up; ulimit -n 65536
{run}
echo $? > {shared}/status
sync
exec /bin/busybox reboot -f
"""


class Channel(StrEnum):
    """What joins the command in the machine with us."""

    OUTPUT = "output"
    """Both its outputs come to our standard output; it has no input."""

    CONVERSATION = "conversation"
    """Our standard input and output are its own, byte for byte; its standard error goes to the machine's console.

    The end of our input is nothing it could see: the machine is ended `PARTING_S` later.
    """

    TERMINAL = "terminal"
    """Our terminal is its terminal."""


# The first named virtio port, which can be open only once; with a terminal the virtio console, which is a tty.
_RUN: Mapping[Channel, str] = {
    Channel.OUTPUT: "(cd {folder} && {command}) >$(ls /dev/vport*p1) 2>&1 </dev/null",
    Channel.CONVERSATION: "(cd {folder} && {command}) <>$(ls /dev/vport*p1) 1>&0 2>/dev/console",
    Channel.TERMINAL: "cd {folder} && /bin/busybox setsid -c sh -c {command} </dev/hvc0 >/dev/hvc0 2>&1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How the virtual machine is made. Two CPUs: the daemons run side by side."""

    cpus: int = 2
    memory: str = "2G"
    timeout_s: float | None = 900.0
    channel: Channel = Channel.OUTPUT


def run_in_machine(command: Sequence[str], *, machine: Machine, folder: Path, shared: Path) -> int:
    """Boot, run `command` in `folder`, stream what it prints to our stdout; its exit status, or 124 or 125.

    `shared` must exist; the guest sees it read-write at the same path. Raises `KernelError` where a tool is missing.
    """
    kernel = prepare_kernel(CACHE / "kernel")
    shared = shared.resolve()  # a link out of the guest's root would not lead anywhere while that is being mounted
    _compile_imports()
    with tempfile.TemporaryDirectory(prefix="machine-", dir=_existing(CACHE)) as scratch_name:
        scratch = Path(scratch_name)
        status, console = shared / "status", shared / "console.log"
        status.unlink(missing_ok=True)
        (shared / "start").write_text(_start_script(command, machine=machine, folder=folder, shared=shared))
        archive = scratch / "initramfs"
        archive.write_bytes(initramfs(kernel, busybox=_static_busybox(), shared=shared))
        finished = _run_qemu(
            _qemu_command(kernel, archive=archive, machine=machine, shared=shared, console=console), machine
        )
        if finished and status.exists():
            return int(status.read_text())
        print(
            f"lab.vm: the machine {'died' if finished else 'ran into its time-out'}; the end of {console}:",
            console.read_text(errors="replace")[-CONSOLE_TAIL:] if console.exists() else "(nothing)",
            sep="\n",
            file=sys.stderr,
        )
        return EXIT_DIED if finished else EXIT_TIMEOUT


def _start_script(command: Sequence[str], *, machine: Machine, folder: Path, shared: Path) -> str:
    line = shlex.join(command)
    if machine.channel is Channel.TERMINAL:
        size = shutil.get_terminal_size()
        line = shlex.quote(f"stty rows {size.lines} cols {size.columns}; {line}")
    passed = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    return _START.format(
        path=shlex.quote(f"{os.environ['PATH']}:/usr/sbin:/sbin"),
        shared=shlex.quote(str(shared)),
        environment=" ".join(f"{name}={shlex.quote(value)}" for name, value in passed.items()),
        run=_RUN[machine.channel].format(folder=shlex.quote(str(folder)), command=line),
    )


def _qemu_command(
    kernel: GuestKernel, *, archive: Path, machine: Machine, shared: Path, console: Path
) -> Sequence[str]:
    accelerated = _kvm_works(kernel)
    return [
        *("setpriv", "--pdeathsig", "KILL"),  # whatever ends us ends the machine
        _qemu(),
        *("-M", "q35,usb=off,vmport=off,hpet=off"),
        *("-accel", "kvm" if accelerated else "tcg,thread=multi,tb-size=512"),
        *("-cpu", "host" if accelerated else "qemu64"),  # richer emulated CPUs are slower: glibc then picks AVX
        *("-smp", str(machine.cpus), "-m", machine.memory),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(kernel.image), "-initrd", str(archive)),
        *("-chardev", f"file,id=console,path={_escaped(console)}", "-serial", "chardev:console"),
        *_shared_folder("root", Path("/"), ",readonly=on"),
        *_shared_folder("shared", shared, ""),
        *("-device", "virtio-serial-pci"),
        *_CHANNEL_DEVICES[machine.channel],
        "-append",
        "console=ttyS0 quiet panic=-1 mitigations=off nokaslr audit=0 random.trust_cpu=on tsc=reliable "
        "no_timer_check rcupdate.rcu_expedited=1 i8042.noaux i8042.nokbd",
    ]


# With a terminal: the virtio console on our own tty, Ctrl-C for the guest. For output alone: a port onto our pipe,
# never a file (see _run_copying_output): QEMU opens /proc/self/fd/1 anew, which would truncate it.
_CHANNEL_DEVICES: Mapping[Channel, Sequence[str]] = {
    Channel.OUTPUT: (
        *("-chardev", "file,id=out,path=/proc/self/fd/1"),
        *("-device", "virtserialport,nr=1,name=out,chardev=out"),
    ),
    Channel.CONVERSATION: (
        *("-chardev", "socket,id=out,fd=0"),  # see _run_conversing
        *("-device", "virtserialport,nr=1,name=out,chardev=out"),
    ),
    Channel.TERMINAL: ("-chardev", "stdio,id=tty,signal=off", "-device", "virtconsole,chardev=tty"),
}


def _shared_folder(tag: str, path: Path, options: str) -> Sequence[str]:
    return [
        *("-fsdev", f"local,id={tag},path={_escaped(path)},security_model=none,multidevs=remap{options}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def _escaped(path: Path) -> str:
    """A path as the value of a QEMU option."""
    return str(path).replace(",", ",,")


def _run_qemu(command: Sequence[str], machine: Machine) -> bool:
    """Run to the end, joined as `machine.channel` says. False: ended by the time-out."""
    match machine.channel:
        case Channel.OUTPUT:
            return _run_copying_output(command, machine)
        case Channel.CONVERSATION:
            return _run_conversing(command, machine)
        case Channel.TERMINAL:
            with subprocess.Popen(command) as qemu, _ended(qemu, after_s=machine.timeout_s) as expired:
                qemu.wait()
    return not expired.is_set()


def _run_copying_output(command: Sequence[str], machine: Machine) -> bool:
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu,
        _ended(qemu, after_s=machine.timeout_s) as expired,
    ):
        if qemu.stdout is not None:
            _copy(qemu.stdout.fileno(), sys.stdout.fileno())
        qemu.wait()
    return not expired.is_set()


def _run_conversing(command: Sequence[str], machine: Machine) -> bool:
    ours, its = socket.socketpair()  # QEMU's own stdio device never says to the guest that somebody listens
    with (
        ours,
        subprocess.Popen(command, stdin=its.fileno(), stdout=sys.stderr) as qemu,
        _ended(qemu, after_s=machine.timeout_s) as expired,
    ):
        its.close()

        def listen() -> None:
            with suppress(OSError):  # the machine has ended
                _copy(sys.stdin.fileno(), ours.fileno())
                time.sleep(PARTING_S)
            qemu.kill()

        threading.Thread(target=listen, daemon=True).start()
        with suppress(ConnectionResetError):
            _copy(ours.fileno(), sys.stdout.fileno())
        qemu.wait()
    return not expired.is_set()


def _copy(source: int, target: int) -> None:
    """Copy from one file descriptor to another as it comes, until the end of `source`."""
    while chunk := os.read(source, 65536):
        while chunk:
            chunk = chunk[os.write(target, chunk) :]


@contextmanager
def _ended(process: subprocess.Popen[bytes], *, after_s: float | None) -> Iterator[threading.Event]:
    """The process ends with this block, and after that time, which the event tells."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(after_s or 0.0, expire)
    if after_s is not None:
        timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        process.kill()


def _kvm_works(kernel: GuestKernel) -> bool:
    """Does KVM run a kernel to its end here? On some nested hosts /dev/kvm opens and then hangs; the answer is kept."""
    verdict = CACHE / "kernel" / "acceleration"
    if not verdict.exists():
        works = os.access("/dev/kvm", os.R_OK | os.W_OK) and _boots_with_kvm(kernel)
        verdict.write_text("kvm" if works else "emulation")
    return verdict.read_text() == "kvm"


def _boots_with_kvm(kernel: GuestKernel) -> bool:
    """A kernel without a root file system panics, resets, and with -no-reboot QEMU ends with status 0."""
    command = [_qemu(), "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config"]
    command += ["-display", "none", "-no-reboot", "-kernel", str(kernel.image), "-append", "quiet panic=-1"]
    try:
        return (
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=8, check=False).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


def _qemu() -> str:
    path = shutil.which("qemu-system-x86_64")
    if path is None:
        raise KernelError("qemu-system-x86_64 not found: install qemu-system-x86")
    return path


def _static_busybox() -> Path:
    path = shutil.which("busybox")
    if path is None or _has_interpreter(Path(path).read_bytes()):
        raise KernelError("a statically linked busybox is needed: install busybox-static")
    return Path(path)


def _has_interpreter(elf: bytes) -> bool:
    """Does a 64-bit ELF file have a PT_INTERP header, that is, does it need a dynamic linker? (elf(5))"""
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    return any(struct.unpack_from("<I", elf, table + index * size) == (3,) for index in range(count))


def _compile_imports() -> None:
    """Byte-compile what the guest will import: it sees the host's files read-only, and imports are its main cost."""
    for folder in sorted({*_site_packages(), *(path.parent for path in PROJECT.glob("*/__init__.py"))}):
        if os.access(folder, os.W_OK):
            compileall.compile_dir(folder, quiet=2, workers=0)


def _site_packages() -> Iterator[Path]:
    for entry in sys.path:
        if Path(entry).name == "site-packages":
            yield Path(entry)


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    options = _parse(arguments)
    if options.action == "prepare":
        print(prepare_kernel(CACHE / "kernel").release)
        return 0
    lacking = _lacking()
    if options.action == "check":
        print(lacking or "the running kernel has all the lab needs")
        return 1 if lacking else 0
    if lacking is None and not options.always:
        return subprocess.run(options.command, check=False).returncode
    machine = Machine(cpus=options.cpus, memory=options.memory, channel=options.channel)
    machine = replace(machine, timeout_s=None if options.channel is Channel.TERMINAL else options.timeout)
    shared = _existing(options.shared)
    return run_in_machine(options.command, machine=machine, folder=Path.cwd(), shared=shared)


def _lacking() -> str | None:
    if os.geteuid() != 0:
        return "not root: what the running kernel can do cannot be tried"
    return missing_feature()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    defaults = Machine()
    parser = argparse.ArgumentParser(prog="python -m lab.vm", description=(__doc__ or "").partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("prepare", help="fetch and unpack the kernel")
    actions.add_parser("check", help="can the running kernel do without the machine?")
    run = actions.add_parser("run", help="run a command where the lab's kernel features are")
    run.add_argument("--cpus", type=int, default=defaults.cpus)
    run.add_argument("--memory", default=defaults.memory, help="as QEMU's -m")
    run.add_argument("--timeout", type=float, default=defaults.timeout_s, help="seconds; none on a terminal")
    run.add_argument(
        "--channel",
        type=Channel,
        choices=tuple(Channel),
        default=defaults.channel,
        help="what joins the command with us: its output, our standard input and output, or our terminal",
    )
    run.add_argument("--always", action="store_true", help="boot the machine even if the running kernel would do")
    run.add_argument("--shared", type=Path, default=CACHE / "shared", help="the folder the guest writes through to")
    run.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KernelError as problem:
        print(f"lab.vm: {problem}", file=sys.stderr)
        sys.exit(EXIT_DIED)
    except KeyboardInterrupt:
        sys.exit(130)
