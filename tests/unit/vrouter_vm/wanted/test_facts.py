from __future__ import annotations

from ipaddress import ip_network

from vrouter_vm.actions import AddRoute, AnyAction, CreateVif, CreateVrf, SetUp, runs
from vrouter_vm.changes import ChangeLog, changed_keys
from vrouter_vm.kernel_model import Route, Trunk, Vif, Vrf
from vrouter_vm.model import MacAddress
from vrouter_vm.wanted.facts import Facts, Layer, Part


def test_a_fact_stays_as_long_as_one_unit_asks_for_it() -> None:
    layer: Layer[str, str] = Layer()
    layer.add("key", "value")
    layer.add("key", "value")
    layer.remove("key", "value")
    assert layer.now == {"key": "value"}
    layer.remove("key", "value")
    assert layer.now == {}


def test_of_two_values_the_one_of_lower_rank_counts_and_the_other_takes_over_when_it_goes() -> None:
    layer: Layer[str, int] = Layer(int)
    for value in (1, 0, 1):
        layer.add("disable_ipv6", value)
    assert layer.now == {"disable_ipv6": 0}
    layer.remove("disable_ipv6", 0)
    assert layer.now == {"disable_ipv6": 1}


def test_the_journal_has_what_was_there_before_whatever_happens_until_the_next_one_begins() -> None:
    layer: Layer[str, str] = Layer()
    layer.add("stays", "as it was")
    layer.add("changes", "old")
    layer.commit()
    layer.remove("changes", "old")
    layer.add("changes", "new")
    layer.add("comes", "now")
    layer.add("comes and goes", "at once")
    layer.remove("comes and goes", "at once")
    assert layer.before == {"changes": "old", "comes": None, "comes and goes": None}
    assert dict(layer.changed()) == {"changes": "new", "comes": "now"}
    assert dict(layer.previous()) == {"changes": "old"}
    layer.commit()
    assert list(layer.changed()) == []


def test_a_subnet_that_another_host_routes_is_not_unreachable_and_is_again_when_that_ends() -> None:
    facts, prefix = Facts(), ip_network("10.1.1.0/24")
    unreachable = Route(table=100005, prefix=prefix, ifname=None)
    elsewhere = Part(routes=(Route(table=100005, prefix=prefix, ifname="x5"),))
    facts.add(Part(routes=(unreachable,)))
    facts.add(elsewhere)
    assert [*facts.routes.now.values()] == [*elsewhere.routes]
    facts.remove(elsewhere)
    assert [*facts.routes.now.values()] == [unreachable]


def test_what_has_changed_is_taken_once_and_everything_has_at_first() -> None:
    log: ChangeLog[str] = ChangeLog()
    log.note(["a"])
    assert log.take() is None
    log.note(["a", "b"])
    log.note(["b"])
    assert log.take() == frozenset({"a", "b"})
    assert log.take() == frozenset()
    log.note(["a"])
    log.note_all()
    assert log.take() is None
    assert changed_keys({"same": 1, "other": 1, "gone": 1}, {"same": 1, "other": 2, "new": 1}) == {
        "other",
        "gone",
        "new",
    }


def test_actions_are_carried_out_together_when_they_are_of_one_kind_and_none_builds_on_another() -> None:
    trunk = Trunk(name="eth1", mac=MacAddress("00:50:56:00:00:01"), is_up=True)

    def vif(vlan: int) -> Vif:
        return Vif(name=f"eth1.{vlan}", vlan=vlan, vrf="v5", mac=trunk.mac)

    route = Route(table=100005, prefix=ip_network("10.1.1.11/32"), ifname="eth1.101")
    actions: list[AnyAction] = [
        CreateVrf(subject="v5", vrf=Vrf(name="v5", table=100005)),
        SetUp(subject="v5", ifname="v5"),
        SetUp(subject="x5", needs=("v5",), ifname="x5"),
        CreateVif(subject="eth1.101", needs=("v5",), vif=vif(101), trunk=trunk),
        CreateVif(subject="eth1.102", needs=("v5",), vif=vif(102), trunk=trunk),
        AddRoute(subject="eth1.101", needs=("v5",), route=route),
    ]
    cut = list(runs(actions))
    assert [len(run) for run in cut] == [1, 1, 1, 2, 1]
    assert [action for run in cut for action in run] == actions
    assert list(runs([])) == []
