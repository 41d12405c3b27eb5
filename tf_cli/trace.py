"""Pure: where a packet from one guest to another ends, walked along what the site's parts say of themselves.

Called by `tf_cli.trace_command`, which asks. The walk: the sender's NIC and dvPort (vCenter), its interface (TF), its
vif (the vRouter agent of its host), then the agent's own steps for the packet: binding, policy, route. From there to
the receiver's vif on the same host, or through the tunnel to the agent of another, and back out by the receiver's vif
and dvPort. It ends at the first step that does not let the packet pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeAlias

from tf_cli.agents import AgentAnswer
from tf_cli.model import SeenInterface, SeenNic
from tf_cli.report import printable, table

IpAddress: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The packet: `protocol` as in the agent's `/trace` (icmp, tcp, udp or a number), `port` the destination's."""

    source: IpAddress
    destination: IpAddress
    protocol: str
    port: int | None

    def query(self) -> dict[str, str]:
        """Return it as the arguments of the agent's `/trace`."""
        query = {"source": str(self.source), "destination": str(self.destination), "protocol": self.protocol}
        return query | ({} if self.port is None else {"port": str(self.port)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the walk. `passes` None: the packet goes where nothing of ours can see it."""

    host: str
    at: str
    detail: str
    passes: bool | None = True


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A guest's NIC and what TF and the agents have for it."""

    nic: SeenNic
    interface: SeenInterface | None

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.nic.vm_name


AskTrace: TypeAlias = Callable[[str, Mapping[str, str]], AgentAnswer]
"""Asks the agent of that host, one that has answered before, for `/trace` with that query."""


class CannotTraceError(Exception):
    """The two ends cannot be told; the message says what there is to choose from."""


def find_end(name: str, *, network: str | None, nics: Iterable[SeenNic], interfaces: Iterable[SeenInterface]) -> End:
    """Return the NIC of the VM of that name, on that network if one is given.

    Raises `CannotTraceError` when there is none or more than one.
    """
    everything = list(nics)
    found = [nic for nic in everything if nic.vm_name == name and network in {None, nic.network}]
    if not found:
        on = f" on network {network}" if network else ""
        networks = sorted({nic.network for nic in everything if nic.vm_name == name})
        there = f"it is on {', '.join(networks)}" if networks else _guests(everything)
        raise CannotTraceError(f"no guest {name}{on} on a portgroup of ours; {there}")
    if len(found) > 1:
        networks = sorted(nic.network for nic in found)
        raise CannotTraceError(f"{name} has {len(found)} NICs, on {', '.join(networks)}: name the network of one")
    nic = found[0]
    by_nic = {(interface.vm_uuid, interface.mac): interface for interface in interfaces}
    return End(nic=nic, interface=by_nic.get((nic.vm_uuid, nic.mac)))


def choose_addresses(source: End, destination: End, *, version: int | None) -> tuple[IpAddress, IpAddress] | None:
    """Return an address of each, of one IP version (IPv4 first), or None when they have none in common."""
    for wanted in (4, 6) if version is None else (version,):
        pair = [
            next((address for address in _addresses(end) if address.version == wanted), None)
            for end in (source, destination)
        ]
        if pair[0] is not None and pair[1] is not None:
            return pair[0], pair[1]
    return None


def walk(
    flow: Flow, *, source: End, destination: End | None, answers: Sequence[AgentAnswer], ask: AskTrace
) -> list[Step]:
    """Return the steps in their order; the last one tells how it ends. `destination` None: not a guest of ours."""
    steps: list[Step] = []
    for step in _out(source, answers):
        steps.append(step)
        if not step.passes:
            return steps
    host = source.nic.host
    vif = _port_of(source, host, answers)
    at, query = host, {"vif": str(vif["vif"]) if vif else "", **flow.query()}
    visited: set[str] = set()
    while True:
        visited.add(at)
        answer = ask(at, query)
        if answer.trouble:
            return [*steps, Step(host=at, at="vRouter agent", detail=answer.trouble, passes=False)]
        steps += [
            Step(host=at, at=str(one["at"]), detail=str(one["detail"]), passes=one["passes"])
            for one in answer.status["steps"]
        ]
        onward = answer.status["next"]
        if onward is None or (steps and not steps[-1].passes):
            return steps
        if onward.get("vif") is not None:
            return [*steps, *_in(onward, at, flow, destination, answers)]
        target = _host_of_vtep(str(onward["vtep"]), answers)
        if target is None:
            beyond = f"VTEP {onward['vtep']} is not one of the configured vRouters: from there on it is that router's"
            return [*steps, Step(host=at, at="tunnel", detail=beyond, passes=None)]
        if target in visited:
            return [*steps, Step(host=target, at="tunnel", detail=f"{target} had it before: a loop", passes=False)]
        own = str(_overlay(at, answers).get("vtep", ""))
        at, query = target, {"vni": str(onward["vni"]), "vtep": own, **flow.query()}


def render_steps(flow: Flow, steps: Sequence[Step]) -> list[str]:
    """Return the table, and the end in one line."""
    marks = {True: "ok", False: "ENDS", None: "?"}
    lines = table(
        ("HOST", "STEP", "", "DETAIL"), ((step.host, step.at, marks[step.passes], step.detail) for step in steps)
    )
    port = "" if flow.port is None else f" port {flow.port}"
    packet = f"{flow.source} -> {flow.destination}, {flow.protocol}{port}"
    return [packet, "", *lines, "", printable(ending(steps))]


def ending(steps: Sequence[Step]) -> str:
    """Return in one line where the packet ends and why."""
    last = steps[-1]
    if last.passes is None:
        return f"leaves our sight at {last.host}, {last.at}: {last.detail}"
    if not last.passes:
        return f"ends at {last.host}, {last.at}: {last.detail}"
    return "reaches the guest; answers follow the same connection back"


def _out(source: End, answers: Sequence[AgentAnswer]) -> Iterable[Step]:
    host = source.nic.host
    yield _nic_step(source)
    yield _dvport_step(source.nic)
    yield _tf_step(source)
    silent = _silence(host, answers)
    if silent is not None:
        yield silent
        return
    yield _vif_step(source, host, answers)


def _in(
    onward: Mapping[str, Any], host: str, flow: Flow, destination: End | None, answers: Sequence[AgentAnswer]
) -> Iterable[Step]:
    if destination is None or destination.interface is None or onward.get("vmi") != destination.interface.vmi_uuid:
        guest = str(onward.get("guest") or onward.get("vmi"))
        whom = f"{flow.destination} is {guest}, on vif {onward['vif']}"
        wanted = f", not {destination.name}" if destination is not None else ""
        yield Step(host=host, at="delivery", detail=f"{whom}{wanted}", passes=destination is None)
        return
    yield _vif_step(destination, host, answers)
    yield _dvport_step(destination.nic)
    yield _nic_step(destination)


def _nic_step(end: End) -> Step:
    nic = end.nic
    if not nic.is_powered_on:
        return Step(host=nic.host, at="guest", detail=f"{end.name} is powered off", passes=False)
    if not nic.dvport_key:
        return Step(host=nic.host, at="guest", detail=f"the NIC {nic.mac} of {end.name} is disconnected", passes=False)
    return Step(host=nic.host, at="guest", detail=f"{end.name}, NIC {nic.mac} on portgroup {nic.network}")


def _dvport_step(nic: SeenNic) -> Step:
    where = f"dvPort {nic.dvport_key}"
    if nic.vlan is None or nic.is_blocked:
        wrong = " and ".join(
            word for word, is_so in (("has no VLAN id", nic.vlan is None), ("is blocked", nic.is_blocked)) if is_so
        )
        detail = f"{where} {wrong}: see what its manager holds (tfv status)"
        return Step(host=nic.host, at="dvPort", detail=detail, passes=False)
    return Step(host=nic.host, at="dvPort", detail=f"{where}, VLAN {nic.vlan}, not blocked")


def _tf_step(end: End) -> Step:
    if end.interface is None:
        return Step(host=end.nic.host, at="TF", detail=f"no interface with MAC {end.nic.mac} in TF", passes=False)
    addresses = ", ".join(end.interface.addresses) or "no address"
    has_address = bool(end.interface.addresses)
    return Step(host=end.nic.host, at="TF", detail=f"{end.interface.vmi_uuid}, {addresses}", passes=has_address)


def _vif_step(end: End, host: str, answers: Sequence[AgentAnswer]) -> Step:
    port = _port_of(end, host, answers)
    if port is None:
        return Step(host=host, at="vif", detail=f"the vRouter agent has no port for {end.name}", passes=False)
    if port["state"] != "active":
        reason = f": {port['reason']}" if port["reason"] else ""
        return Step(host=host, at="vif", detail=f"its port is {port['state']}{reason}", passes=False)
    if port["vlan"] != end.nic.vlan:
        detail = f"{port['vif']} is for VLAN {port['vlan']}, the dvPort has {end.nic.vlan}"
        return Step(host=host, at="vif", detail=detail, passes=False)
    return Step(host=host, at="vif", detail=f"{port['vif']} in VRF {port['vrf']}")


def _silence(host: str, answers: Sequence[AgentAnswer]) -> Step | None:
    mine = [answer for answer in answers if answer.host == host]
    if any(answer.status for answer in mine):
        return None
    detail = mine[0].trouble if mine else "no vRouter agent of that host is in the configuration"
    return Step(host=host, at="vRouter agent", detail=detail, passes=False)


def _port_of(end: End, host: str, answers: Sequence[AgentAnswer]) -> Mapping[str, Any] | None:
    if end.interface is None:
        return None
    for answer in answers:
        if answer.host == host and answer.status:
            port: Mapping[str, Any] | None = answer.status["ports"].get(end.interface.vmi_uuid)
            return port
    return None


def _overlay(host: str, answers: Sequence[AgentAnswer]) -> Mapping[str, Any]:
    for answer in answers:
        if answer.host == host and "overlay" in answer.status:
            overlay: Mapping[str, Any] = answer.status["overlay"]
            return overlay
    return {}


def _host_of_vtep(vtep: str, answers: Sequence[AgentAnswer]) -> str | None:
    return next((answer.host for answer in answers if _overlay(answer.host, answers).get("vtep") == vtep), None)


def _addresses(end: End) -> list[IpAddress]:
    return [ip_address(text) for text in end.interface.addresses] if end.interface else []


def _guests(nics: Sequence[SeenNic]) -> str:
    names = sorted({nic.vm_name for nic in nics})
    return f"there are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}" if names else "there is none"  # noqa: PLR2004
