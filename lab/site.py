"""The simulated site as values: hosts, addresses, names, accounts, and the machines that are none of our business.

Called by everything in the lab; knows no process and no kernel. The addresses are those set aside for documentation
(RFC 5737) and nothing outside the lab's own namespaces uses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

MANAGEMENT = IPv4Network("198.51.100.0/24")
UNDERLAY = IPv4Network("192.0.2.0/24")
REFLECTOR = UNDERLAY[100]
AUTONOMOUS_SYSTEM = 64512
DVSWITCH = "dvs-tf"
TRUNK_PORTGROUP = "tf-trunk"
STANDARD_NETWORK = "VM Network"
TENANT = ("default-domain", "vCenter")
FIRST_VLAN, LAST_VLAN = 101, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A login, made up for the lab."""

    user: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One ESXi host with its vRouter VM. `letter` is what its names have in common."""

    letter: str
    esxi_address: IPv4Address
    vrouter_address: IPv4Address
    underlay_address: IPv4Address
    smbios_uuid: str

    @property
    def name(self) -> str:
        """The ESXi host's name."""
        return f"esx-{self.letter}"

    @property
    def vrouter(self) -> str:
        """The name of its vRouter VM, and of the namespace that is this VM."""
        return f"vrouter-{self.letter}"

    @property
    def dvswitch_bridge(self) -> str:
        """The bridge that stands for its part of the dvSwitch."""
        return f"dvs-{self.letter}"

    @property
    def standard_bridge(self) -> str:
        """The bridge that stands for its standard switch."""
        return f"std-{self.letter}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignVm:
    """A VM on a network that TF knows nothing of; it must work before, during and after, untouched."""

    name: str
    host: str
    network: str
    address: IPv4Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The whole site."""

    hosts: tuple[Host, ...]
    foreign_portgroups: tuple[tuple[str, int], ...]
    foreign_vms: tuple[ForeignVm, ...]
    gateway_mac: str
    vcenter_address: IPv4Address = MANAGEMENT[10]
    controller_address: IPv4Address = MANAGEMENT[11]
    plugin_address: IPv4Address = MANAGEMENT[12]
    administrator: Account = Account(user="administrator@vsphere.local", password="lab-administrator")
    esxi_root: Account = Account(user="root", password="lab-esxi-root")
    tf_token: str = "lab-tf-token"
    status_token: str = "lab-status-token"

    def host(self, name: str) -> Host:
        """The host of that name."""
        return next(host for host in self.hosts if host.name == name)

    @property
    def server_addresses(self) -> tuple[IPv4Address, ...]:
        """The management addresses of all that runs beside the hosts."""
        esxi = (host.esxi_address for host in self.hosts)
        return (self.vcenter_address, self.controller_address, self.plugin_address, *esxi)


def two_hosts() -> Site:
    """The site of the demo: two hosts, and foreign VMs on two dv-portgroups and on a standard switch."""
    return Site(
        hosts=_hosts("ab"),
        foreign_portgroups=(("office", 700), ("infrastructure", 701)),
        foreign_vms=(
            _foreign("office-1", "esx-a", "office", "10.70.0.11/24"),
            _foreign("office-2", "esx-b", "office", "10.70.0.12/24"),
            _foreign("vcenter", "esx-a", "infrastructure", "10.71.0.10/24"),
            _foreign("backup", "esx-b", "infrastructure", "10.71.0.20/24"),
            _foreign("plain-1", "esx-a", STANDARD_NETWORK, "10.72.0.11/24"),
            _foreign("plain-2", "esx-b", STANDARD_NETWORK, "10.72.0.12/24"),
        ),
        gateway_mac="00:50:56:00:00:01",
    )


def three_hosts() -> Site:
    """The site on which moves are measured: three hosts, and guests of an ordinary portgroup to compare with."""
    return Site(
        hosts=_hosts("abc"),
        foreign_portgroups=(("office", 700),),
        foreign_vms=(
            _foreign("office-moves", "esx-a", "office", "10.70.0.20/24"),
            *(_foreign(f"office-{x}", f"esx-{x}", "office", f"10.70.0.{n}/24") for n, x in enumerate("abc", 11)),
        ),
        gateway_mac="00:50:56:00:00:01",
    )


def _hosts(letters: str) -> tuple[Host, ...]:
    return tuple(
        Host(
            letter=letter,
            esxi_address=MANAGEMENT[20 + number],
            vrouter_address=MANAGEMENT[30 + number],
            underlay_address=UNDERLAY[number],
            smbios_uuid=f"564d7f00-0000-4000-8000-00000000000{number}",
        )
        for number, letter in enumerate(letters, start=1)
    )


def _foreign(name: str, host: str, network: str, address: str) -> ForeignVm:
    return ForeignVm(name=name, host=host, network=network, address=IPv4Interface(address))


def simulator_site(site: Site) -> dict[str, object]:
    """The site in the form of the simulator's `-site` file."""
    return {
        "vcenter": {"listen": f"{site.vcenter_address}:443", **_account(site.administrator)},
        "api_version": "8.0.3.0",
        "control": "127.0.0.1:0",
        "dvs": DVSWITCH,
        "hosts": [
            {
                "name": host.name,
                "listen": f"{host.esxi_address}:443",
                **_account(site.esxi_root),
                "vrouter": {
                    "name": host.vrouter,
                    "smbios_uuid": host.smbios_uuid,
                    "trunk_mac": site.gateway_mac,
                    "trunk_portgroup": TRUNK_PORTGROUP,
                },
            }
            for host in site.hosts
        ],
        "portgroups": [
            {"name": TRUNK_PORTGROUP, "trunk": [[0, 4094]]},
            *({"name": name, "vlan": vlan} for name, vlan in site.foreign_portgroups),
        ],
        "standard_networks": [STANDARD_NETWORK],
        "vms": [{"name": vm.name, "host": vm.host, "networks": [vm.network], "power": "on"} for vm in site.foreign_vms],
    }


def _account(account: Account) -> dict[str, str]:
    return {"user": account.user, "password": account.password}
