"""Two managers without memory in a world that changes and kills them: safe at each step, right when it is quiet."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes.manager_world import World, vm_uuid_of
from tf_reconcile.errors import Conflict, Rejected
from vcenter_manager.actions import AnyAction
from vcenter_manager.model import HostMoref, Snapshot

NAMES = ("g0", "g1", "g2", "g3")
HOSTS = ("host-a", "host-b")
NETWORKS = ("blue", "red", "office", "")
names = st.sampled_from(NAMES)
hosts = st.sampled_from(HOSTS)


class ManagersInAWorld(RuleBasedStateMachine):
    """Between any two actions of a manager the world may change, and the manager may die."""

    resets_at_disconnect = True
    starts_disabled = False
    blind: Callable[[Snapshot], Snapshot] = staticmethod(lambda snapshot: snapshot)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            resets_at_disconnect=self.resets_at_disconnect,
            starts_disabled=self.starts_disabled,
            ranges=((1, 5), (8, 12)),  # 2 and 3 are reserved: eight ids, for at most eight NICs
            starts_alike=True,
        )
        self.world.blind = self.blind
        self.todo: dict[str, list[AnyAction]] = {host: [] for host in HOSTS}

    @initialize(placed=st.tuples(*[st.tuples(hosts, st.sampled_from(NETWORKS[:2]))] * len(NAMES)), quiet=st.booleans())
    def guests_are_there(self, placed: tuple[tuple[str, str], ...], quiet: bool) -> None:
        for name, (host, network) in zip(NAMES, placed, strict=True):
            self.world.create(name, host, network)
            if quiet:  # each host by itself: ids that meet when a guest moves
                self.world.run_until_quiet(knows_domain=False)

    @rule(name=names, host=hosts, network=st.sampled_from(NETWORKS), running=st.booleans())
    def create(self, name: str, host: str, network: str, running: bool) -> None:
        if vm_uuid_of(name) not in self.world.machines:
            self.world.create(name, host, network, running=running)

    @rule(name=names, network=st.sampled_from(NETWORKS), device_key=st.sampled_from((4000, 4001)))
    def plug(self, name: str, network: str, device_key: int) -> None:
        if vm_uuid_of(name) in self.world.machines:
            self.world.attach(name, network, device_key)

    @rule(name=names, device_key=st.sampled_from((4000, 4001)))
    def unplug(self, name: str, device_key: int) -> None:
        machine = self.world.machines.get(vm_uuid_of(name))
        if machine is not None and device_key in machine.nics:
            self.world.detach(name, device_key)

    @rule(name=names, on=st.booleans())
    def power(self, name: str, on: bool) -> None:
        if vm_uuid_of(name) in self.world.machines:
            self.world.power(name, on=on)

    @rule(name=names, connected=st.booleans())
    def connect(self, name: str, connected: bool) -> None:
        machine = self.world.machines.get(vm_uuid_of(name))
        if machine is not None and 4000 in machine.nics:
            self.world.connect(name, connected=connected)

    @rule(name=names)
    def delete(self, name: str) -> None:
        if vm_uuid_of(name) in self.world.machines:
            self.world.delete(name)

    @precondition(lambda self: not any(self.todo.values()))
    @rule(name=names, host=hosts)
    def migrate_between_idle_moments(self, name: str, host: str) -> None:
        if vm_uuid_of(name) in self.world.machines:
            self.world.migrate(name, host)

    @precondition(lambda self: not any(self.todo.values()))
    @rule(name=names, host=hosts, told=st.booleans())
    def enter_the_host_before_vcenter_says_so(self, name: str, host: str, told: bool) -> None:
        if vm_uuid_of(name) in self.world.machines:
            self.world.migrate(name, host, follows=False, is_told=told)

    @rule()
    def vcenter_says_so(self) -> None:
        self.world.follow()

    @rule(name=names, host=hosts)
    def vcenter_announces_a_move(self, name: str, host: str) -> None:
        if vm_uuid_of(name) in self.world.machines:
            self.world.announce(name, host)

    @rule(pressing=st.booleans())
    def time_goes_by_since_moves_began(self, pressing: bool) -> None:
        self.world.are_moves_pressing = pressing

    @rule(name=names)
    def a_move_fails(self, name: str) -> None:
        self.world.cancel(name)

    @rule(host=hosts, knows_domain=st.booleans())
    def manager_decides(self, host: str, knows_domain: bool) -> None:
        if not self.todo[host]:
            self.todo[host] = [*self.world.decide(host, knows_domain=knows_domain).plan.actions]

    @rule(host=hosts, count=st.integers(min_value=1, max_value=8))
    def manager_acts(self, host: str, count: int) -> None:
        for _ in range(min(count, len(self.todo[host]))):
            try:
                self.world.apply(host, self.todo[host].pop(0))
            except (Conflict, Rejected):
                continue

    @rule(host=hosts, knows_domain=st.booleans())
    def manager_passes(self, host: str, knows_domain: bool) -> None:
        self.todo[host] = []
        self.world.pass_of(host, knows_domain=knows_domain)

    @rule(host=hosts, passes=st.integers(min_value=2, max_value=5))
    def manager_and_agent_are_left_alone(self, host: str, passes: int) -> None:
        self.todo[host] = []
        for _ in range(passes):
            self.world.pass_of(host)
            self.world.agents[HostMoref(host)].settle()

    @rule(host=hosts)
    def manager_is_killed(self, host: str) -> None:
        self.todo[host] = []

    @rule(host=hosts)
    def agent_settles(self, host: str) -> None:
        self.world.agents[HostMoref(host)].settle()

    @rule()
    def everything_comes_to_rest(self) -> None:
        self.todo = {host: [] for host in HOSTS}
        self.world.follow()
        self.world.run_until_quiet()
        self.world.assert_alive()
        for host in HOSTS:
            assert self.world.decide(host).plan.is_empty, "a second plan is not empty"

    @invariant()
    def tf_has_no_interface_without_a_virtual_machine(self) -> None:
        assert {owner for owner, _ in self.world.interfaces.values()} <= set(self.world.vms)

    def teardown(self) -> None:
        self.everything_comes_to_rest()


class WithoutResetAtDisconnect(ManagersInAWorld):
    """The same where vCenter leaves overrides on the ports of NICs that are gone."""

    resets_at_disconnect = False


class WithTfsOwnAgent(ManagersInAWorld):
    """The same with an agent whose ports start disabled."""

    starts_disabled = True


fast = settings(max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestManagersInAWorld = ManagersInAWorld.TestCase
TestManagersInAWorld.settings = fast
TestWithoutResetAtDisconnect = WithoutResetAtDisconnect.TestCase
TestWithoutResetAtDisconnect.settings = fast
TestWithTfsOwnAgent = WithTfsOwnAgent.TestCase
TestWithTfsOwnAgent.settings = fast
