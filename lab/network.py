"""The parts of the lab's network that stand still: management, underlay, the hosts' switches, the wires between them.

Called by `lab.running`; works in the current network namespace, which must be the lab's own (a throw-away machine, or
the private namespaces that `lab.__main__` makes), because it takes the names and the addresses it wants.

    management   bridge here; vCenter, ESXi hosts, controller, plugin have their addresses on it, each vRouter VM a port
    fabric       a namespace: per host a bridge for the dvSwitch and one for the standard switch (lab.dvswitch plugs the
                 vNICs), a physical switch between their uplinks, and the underlay between the vRouter VMs, with
                 a route reflector on it
    vrouter-a    a namespace per vRouter VM: eth0 management, eth1 trunk (plugged by lab.dvswitch), eth2 underlay
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from lab.dvswitch import FABRIC, UNTAGGED_VID, SwitchHost, SwitchSite
from lab.site import MANAGEMENT, REFLECTOR, UNDERLAY, Host, Site
from lab.tools import run_batch, run_tool

MANAGEMENT_BRIDGE = "management"
MANAGEMENT_NIC, TRUNK_NIC, UNDERLAY_NIC = "eth0", "eth1", "eth2"
UNDERLAY_MTU_BYTES = 1600


def build(site: Site) -> None:
    """Make all of it."""
    run_batch("ip", _here(site))
    run_batch("ip", _fabric(site), namespace=FABRIC)
    run_batch("bridge", _uplink_vlans(site), namespace=FABRIC)
    for host in site.hosts:
        run_batch("ip", _vrouter(host), namespace=host.vrouter)


def remove() -> None:
    """Remove every namespace and the management bridge: what `build` and `lab.dvswitch` made."""
    names = [entry["name"] for entry in json.loads(run_tool(["ip", "-j", "netns", "list"]) or "[]")]
    links = [entry["ifname"] for entry in json.loads(run_tool(["ip", "-j", "link", "show"]))]
    bridge = [f"link del {MANAGEMENT_BRIDGE}"] if MANAGEMENT_BRIDGE in links else []
    run_batch("ip", [*(f"netns del {name}" for name in names), *bridge])


def switch_site(site: Site) -> SwitchSite:
    """What the dvSwitch stand-in has to know of this network."""
    return SwitchSite(
        hosts={
            host.name: SwitchHost(dvswitch=host.dvswitch_bridge, standard=host.standard_bridge) for host in site.hosts
        },
        vrouters=frozenset(host.vrouter for host in site.hosts),
    )


def _here(site: Site) -> Iterator[str]:
    yield "link set lo up"
    yield f"netns add {FABRIC}"
    yield f"link add {MANAGEMENT_BRIDGE} type bridge"
    yield f"link set {MANAGEMENT_BRIDGE} up"
    for address in site.server_addresses:
        yield f"addr add {address}/{MANAGEMENT.prefixlen} dev {MANAGEMENT_BRIDGE}"
    for host in site.hosts:
        yield f"netns add {host.vrouter}"
        yield f"link add m-{host.vrouter} type veth peer name {MANAGEMENT_NIC} netns {host.vrouter}"
        yield f"link set m-{host.vrouter} master {MANAGEMENT_BRIDGE} up"


def _fabric(site: Site) -> Iterator[str]:
    yield "link set lo up"
    yield "link add underlay type bridge"
    yield f"link set underlay mtu {UNDERLAY_MTU_BYTES} up"
    yield f"addr add {REFLECTOR}/{UNDERLAY.prefixlen} dev underlay"
    yield _switch("physical")
    yield "link set physical up"
    for host in site.hosts:
        yield (
            f"link add u-{host.vrouter} mtu {UNDERLAY_MTU_BYTES} type veth peer name {UNDERLAY_NIC} "
            f"mtu {UNDERLAY_MTU_BYTES} netns {host.vrouter}"
        )
        yield f"link set u-{host.vrouter} master underlay up"
        for bridge in (host.dvswitch_bridge, host.standard_bridge):
            yield _switch(bridge)
            yield f"link set {bridge} up"
            yield f"link add up-{bridge} type veth peer name ph-{bridge}"
            for end, master in ((f"up-{bridge}", bridge), (f"ph-{bridge}", "physical")):
                yield f"link set {end} master {master} up"
                yield f"link set {end} type bridge_slave learning off flood on"


def _switch(name: str) -> str:
    return f"link add {name} type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0 stp_state 0"


def _uplink_vlans(site: Site) -> Iterator[str]:
    """The physical network carries the VLANs of the portgroups that are not ours, and none that a manager gives out."""
    for host in site.hosts:
        for end in (f"up-{host.dvswitch_bridge}", f"ph-{host.dvswitch_bridge}"):
            for _, vlan in site.foreign_portgroups:
                yield f"vlan add dev {end} vid {vlan}"
        for end in (f"up-{host.standard_bridge}", f"ph-{host.standard_bridge}"):
            yield f"vlan add dev {end} vid {UNTAGGED_VID} pvid untagged"


def _vrouter(host: Host) -> Iterator[str]:
    for nic in ("lo", UNDERLAY_NIC, MANAGEMENT_NIC):
        yield f"link set {nic} up"
    yield f"addr add {host.underlay_address}/{UNDERLAY.prefixlen} dev {UNDERLAY_NIC}"
    yield f"addr add {host.vrouter_address}/{MANAGEMENT.prefixlen} dev {MANAGEMENT_NIC}"
