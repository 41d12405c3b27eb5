"""What a person does in the lab's shell: `lab vm create | move | delete` in vCenter, `lab network ...` in TF.

    python -m lab.hands vm create green-1 esx-a green
    python -m lab.hands vm move green-1 esx-b
    python -m lab.hands network create green 10.2.0.0/24 fd00:2::/64

Acts on the site that `lab.running` has up, by the same interfaces as a vSphere administrator and a TF user.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from pyVmomi import vmodl

from lab.networks import create_network
from lab.running import ENDPOINT_FILE
from lab.services import ServiceError, wait_until
from lab.simulator import Endpoint
from lab.site import TENANT
from lab.vsphere_admin import VsphereAdmin
from tf_api.settings import open_config_api
from tf_cli.settings import TfvSettings
from tf_reconcile.errors import AgentError
from tf_runtime.settings import load_settings

EXIT_REFUSED = 1
PORTGROUP_S = 120.0


def main(arguments: Sequence[str]) -> int:
    """Do one thing; the exit status."""
    options = _parse(arguments)
    try:
        if options.what == "vm":
            _change_vm(options)
        else:
            _change_network(options)
    except KeyError as problem:
        print(f"refused: there is no {problem.args[0]}", file=sys.stderr)
        return EXIT_REFUSED
    except (AgentError, ServiceError, vmodl.MethodFault) as problem:
        print(f"refused: {getattr(problem, 'msg', None) or problem}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _administrator() -> VsphereAdmin:
    return VsphereAdmin(Endpoint(**json.loads(ENDPOINT_FILE.read_text()))).login()


def _change_vm(options: argparse.Namespace) -> None:
    with _administrator() as admin:
        if options.action == "create":
            admin.create_vm(options.name, options.host, options.networks)
        elif options.action == "move":
            admin.migrate(options.name, options.host)
        else:
            admin.delete_vm(options.name)


def _change_network(options: argparse.Namespace) -> None:
    file = os.environ["TFV_CONFIG"]
    api = open_config_api(load_settings(Path(file), TfvSettings).tf, file=file)
    if options.action == "create":
        create_network(api, options.name, *options.prefixes)
        with _administrator() as admin:  # who creates a guest next wants to find it there
            wait_until(
                lambda: admin.find_portgroup(options.name) is not None,
                timeout_s=PORTGROUP_S,
                what=f"vCenter has a portgroup {options.name}; `tfv status` may say why not",
            )
        return
    uuid = api.fqname_to_uuid("virtual-network", (*TENANT, options.name))
    if uuid is None:
        raise KeyError(options.name)
    api.delete("virtual-network", uuid)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lab", description=(__doc__ or "").partition("\n")[0])
    things = parser.add_subparsers(dest="what", required=True)
    vm = things.add_parser("vm", help="virtual machines, in vCenter").add_subparsers(dest="action", required=True)
    create = vm.add_parser("create", help="create and power on, with a NIC per network")
    create.add_argument("name")
    create.add_argument("host")
    create.add_argument("networks", nargs="+", metavar="network")
    move = vm.add_parser("move", help="vMotion to another host")
    move.add_argument("name")
    move.add_argument("host")
    vm.add_parser("delete", help="power off and delete").add_argument("name")
    network = things.add_parser("network", help="virtual networks, in TF").add_subparsers(dest="action", required=True)
    new = network.add_parser("create", help="create with a subnet per prefix, and wait for its portgroup")
    new.add_argument("name")
    new.add_argument("prefixes", nargs="+", metavar="prefix", type=ip_network)
    network.add_parser("delete", help="delete").add_argument("name")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
