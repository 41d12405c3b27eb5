"""The lab's commands: `python -m lab demo | shell | test | run`.

    demo [--kill] [--shell]   bring the site up, tell the story; exit status 0 if every verdict was right
    shell                     bring the site up with networks and guests, and give a shell to look around
    test [PYTEST ARGUMENT...] the tests that need the lab's kernel features (markers kernel and e2e)
    run -- COMMAND            a command in such surroundings, such as a bench's part that brings a site up

Each runs in surroundings of its own that vanish with it: private namespaces where the running kernel has all that is
needed and we are root, else a throw-away virtual machine (`lab.vm`).
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.demo import Crashes, Demo, every_end_of_every_daemon
from lab.kernel import KernelError, missing_feature
from lab.running import STATE, Lab, log_folder
from lab.services import ServiceError
from lab.simulator import SimulatorError
from lab.site import two_hosts
from lab.story import Teller
from lab.testing import run_here, run_in_machines
from lab.tools import ToolError
from lab.vm import CACHE, EXIT_DIED, PROJECT, Channel, Machine, run_in_machine

PRIVATE_VARIABLES = ("TFV_GUEST", "TFV_PRIVATE")
ISOLATION = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
DEMO_TIMEOUT_S = 1800.0

_SHELL_RC = """
export TFV_CONFIG={config} PATH={bin}:$PATH
tfv() {{ {python} -m tf_cli "$@"; }}
lab() {{ {python} -m lab.hands "$@"; }}
on() {{ local vm=$1; shift; ip netns exec "$vm" "$@"; }}
PS1='lab# '
cat <<'BANNER'

The site is up. To look around:
  tfv status                            guests, dvPorts, VLANs, vifs, addresses, and the daemons' health
  tfv routes, tfv vrf, tfv vifs         where each host sends which address, its VRFs, its guests' vifs and counters
  tfv check                             is the site right: one line per check
  lab network create green 10.2.0.0/24 fd00:2::/64; lab vm create green-1 esx-a green; lab vm move green-1 esx-b
  on blue-1 ping 10.1.1.1               run something in a guest (or in vrouter-a, vrouter-b, fabric)
  on vrouter-a ip route show table all proto 80   what the vRouter agent routes (`nft list ruleset`: its filters)
  bridge -n fabric vlan                 the dvSwitch: who is in which VLAN
  ls {logs}
Leaving the shell ends it all.
BANNER
"""


def main(arguments: Sequence[str]) -> int:
    """Do what is asked, in the surroundings it needs; the exit status."""
    options = _parse(arguments)
    if not any(name in os.environ for name in PRIVATE_VARIABLES):
        return _run_in_private_surroundings(options, arguments)
    _mount_private_folders()
    if options.action == "test":
        return run_here(options.pytest_arguments)
    if options.action == "run":
        return subprocess.run(options.command, cwd=PROJECT, check=False).returncode
    return _run_site(options)


def _run_in_private_surroundings(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "lab", *arguments]
    if os.geteuid() == 0 and missing_feature() is None:
        environment = {**os.environ, "TFV_PRIVATE": "1"}
        return subprocess.run([*ISOLATION, *command], cwd=PROJECT, env=environment, check=False).returncode
    if options.action == "test":
        return run_in_machines(options.pytest_arguments)
    shared = CACHE / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    wants_terminal = options.action == "shell" or (options.action == "demo" and options.shell)
    channel = Channel.TERMINAL if wants_terminal else Channel.OUTPUT
    machine = Machine(channel=channel, timeout_s=None if wants_terminal else DEMO_TIMEOUT_S)
    return run_in_machine(command, machine=machine, folder=PROJECT, shared=shared)


def _mount_private_folders() -> None:
    """A table of network namespaces and a folder for the site of our own: the host's are neither seen nor touched.

    The host's table may be a mount too (iproute2 makes it one), so it says nothing that something is mounted there.
    """
    for folder in (Path("/run/netns"), STATE):
        folder.mkdir(exist_ok=True)
        if "TFV_PRIVATE" in os.environ:
            subprocess.run(["mount", "-t", "tmpfs", "lab", str(folder)], check=True)


def _run_site(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.ERROR)  # what is logged below that is retried, and shows in the verdicts
    site, teller = two_hosts(), Teller()
    crashes = every_end_of_every_daemon(site) if options.action == "demo" and options.kill else Crashes()
    teller.heading("The lab: two ESXi hosts, one vCenter, one TF controller")
    with Lab(site, tell=teller.say) as lab:
        is_told = _tell(lab, Demo(lab, teller, crashes=crashes), teller, is_whole=options.action == "demo")
        status = teller.end()
        if is_told and (options.action == "shell" or options.shell):
            _shell(lab.tfv_file, log_folder())
    return status


def _tell(lab: Lab, demo: Demo, teller: Teller, *, is_whole: bool) -> bool:
    """Start the lab and tell its story, or only the beginning; False if it broke off, which is a wrong verdict."""
    try:
        lab.start(at_start=lambda: demo.crash("start"))
        if is_whole:
            demo.run()
        else:
            demo.set_up()
    except (ServiceError, SimulatorError, ToolError) as problem:
        teller.judge("the story goes on", False, detail=str(problem))
        teller.say(f"logs: {log_folder()}")
        return False
    return True


def _shell(tfv_file: Path, logs: Path) -> None:
    python = Path(sys.executable)
    rc_file = tfv_file.with_name("shell.rc")
    rc_file.write_text(
        _SHELL_RC.format(
            config=shlex.quote(str(tfv_file)),
            bin=shlex.quote(str(python.parent)),
            python=shlex.quote(str(python)),
            logs=shlex.quote(str(logs)),
        )
    )
    subprocess.run(["bash", "--rcfile", str(rc_file), "-i"], cwd=PROJECT, check=False)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab", description=(__doc__ or "").partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    demo = actions.add_parser("demo", help="bring the site up and tell the story")
    demo.add_argument(
        "--kill", action="store_true", help="kill and restart every daemon at several points of the story"
    )
    demo.add_argument("--shell", action="store_true", help="give a shell at the end")
    actions.add_parser("shell", help="bring the site up and give a shell")
    test = actions.add_parser("test", help="run the tests that need the lab's kernel features")
    test.add_argument("pytest_arguments", nargs="*")
    actions.add_parser("run", help="run a command in such surroundings").add_argument("command", nargs="+")
    options, unknown = parser.parse_known_args(arguments)
    if unknown and options.action != "test":
        parser.error(f"unknown: {' '.join(unknown)}")
    if options.action == "test":
        options.pytest_arguments = [*options.pytest_arguments, *unknown]
    return options


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KernelError as problem:
        print(f"lab: {problem}", file=sys.stderr)
        sys.exit(EXIT_DIED)
    except KeyboardInterrupt:
        sys.exit(130)
