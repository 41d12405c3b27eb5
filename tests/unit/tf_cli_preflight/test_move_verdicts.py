from __future__ import annotations

import pytest

from tf_cli.preflight.model import MoveCheck, MoveFacts, Obstacle, Unknown, Verdict
from tf_cli.preflight.move_choice import choose_moves
from tf_cli.preflight.move_verdicts import judge_moves

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
INTRANET = Obstacle(kind="VMOnVirtualIntranet", text="a virtual intranet", is_about_networks=True)
NO_NETWORK = Obstacle(kind="CannotAccessNetwork", text="no dvs-tf there", is_about_networks=True)
CPU = Obstacle(kind="CpuIncompatible", text="another CPU", is_about_networks=False)


def _check(destination: str = "esx-b", **changes: tuple[Obstacle, ...]) -> MoveCheck:
    return MoveCheck(vm="web", source="esx-a", destination=destination, **changes)


CASES = [
    ("all allowed", MoveFacts(checks=(_check(),), pairs=2), PASS, "allows all 1 moves tried, of 2 pairs", ""),
    (
        "a host without guest",
        MoveFacts(checks=(_check(),), pairs=2, hosts_without_guest=("esx-b",)),
        WARN,
        "no guest on a TF network to try it with on esx-b",
        "Look again",
    ),
    ("no guest", MoveFacts(checks=(), pairs=2, hosts_without_guest=("esx-a", "esx-b")), WARN, "esx-a, esx-b", "again"),
    ("one host", MoveFacts(checks=(), pairs=0), WARN, "no two hosts", ""),
    (
        "virtual intranet",
        MoveFacts(checks=(_check(errors=(CPU, INTRANET)),), pairs=2),
        FAIL,
        "web from esx-a to esx-b: VMOnVirtualIntranet: a virtual intranet",
        "config.migrate.test.CompatibleNetworks.VMOnVirtualIntranet to false",
    ),
    (
        "switch not on the host",
        MoveFacts(checks=(_check(), _check("esx-c", errors=(NO_NETWORK,)), _check(errors=(NO_NETWORK,))), pairs=6),
        FAIL,
        "to esx-c (and 1 more moves): CannotAccessNetwork",
        "Add the host",
    ),
    ("not ours", MoveFacts(checks=(_check(errors=(CPU,)),), pairs=2), WARN, "CpuIncompatible", "Not about networks"),
    ("a warning", MoveFacts(checks=(_check(warnings=(CPU,)),), pairs=2), WARN, "CpuIncompatible", ""),
    ("unsupported", Unknown(reason="not supported by this endpoint"), WARN, "not supported", "by hand"),
]


@pytest.mark.parametrize(
    ("facts", "verdict", "found", "advice"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdict(facts: MoveFacts | Unknown, verdict: Verdict, found: str, advice: str) -> None:
    line = judge_moves(facts)
    assert (line.verdict, found in line.found, advice in line.advice) == (verdict, True, True), line


def test_every_ordered_pair_is_chosen_once() -> None:
    moves = choose_moves(["a", "b", "c"], {"a": "guest-a", "b": "guest-b", "c": "guest-c"}, most=100)
    pairs = [(source, destination) for _, source, destination in moves]
    assert sorted(pairs) == [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]
    assert all(guest == f"guest-{source}" for guest, source, _ in moves)


def test_with_too_many_pairs_every_host_is_a_source_and_a_destination_first() -> None:
    hosts = [f"esx-{number:02}" for number in range(64)]
    moves = choose_moves(hosts, {host: f"guest of {host}" for host in hosts}, most=64)
    assert len(moves) == 64
    assert {source for _, source, _ in moves} == {destination for _, _, destination in moves} == set(hosts)


def test_a_host_without_a_guest_is_only_a_destination() -> None:
    assert choose_moves(["a", "b"], {"a": "web"}, most=10) == (("web", "a", "b"),)


@pytest.mark.parametrize("hosts", [[], ["a"]])
def test_without_a_second_host_there_is_nothing_to_choose(hosts: list[str]) -> None:
    assert choose_moves(hosts, {"a": "web"}, most=10) == ()
