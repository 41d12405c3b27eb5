"""Pure: what vCenter says about moving guests between the hosts → one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tf_cli.preflight.model import Line, MoveCheck, MoveFacts, Obstacle, Unknown
from tf_cli.preflight.wording import few

_INTRANET: Final = "VMOnVirtualIntranet"


def judge_moves(moves: MoveFacts | Unknown) -> Line:
    """vCenter would let a guest move between every two hosts. A refusal over networks is ours to mend, another is not.

    A switch without physical NICs is a "virtual intranet" to vCenter, which may refuse to move what is on it (VMware KB
    1003832).
    """
    if isinstance(moves, Unknown):
        return Line.warned("vmotion", moves.reason, "Try one vMotion of a guest by hand.")
    if not moves.checks:
        return Line.warned("vmotion", _untested(moves), "Look again when there are guests on TF networks.")
    refused = [check for check in moves.checks if _about_networks(check)]
    if refused:
        return Line.failed("vmotion", _first_of(refused, _about_networks), _move_advice(refused))
    other = [check for check in moves.checks if check.errors or check.warnings]
    if other:
        return Line.warned(
            "vmotion", _first_of(other, _all_obstacles), "Not about networks: see the hosts' own settings."
        )
    text = f"vCenter allows all {len(moves.checks)} moves tried, of {moves.pairs} pairs of hosts"
    if moves.hosts_without_guest:
        return Line.warned("vmotion", f"{text}; {_untested(moves)}", "Look again when there are guests on all hosts.")
    return Line.passed("vmotion", text)


def _untested(moves: MoveFacts) -> str:
    if not moves.pairs:
        return "there are no two hosts to move between"
    return f"no guest on a TF network to try it with on {few(moves.hosts_without_guest)}"


def _about_networks(check: MoveCheck) -> tuple[Obstacle, ...]:
    return tuple(one for one in check.errors if one.is_about_networks)


def _all_obstacles(check: MoveCheck) -> tuple[Obstacle, ...]:
    return (*check.errors, *check.warnings)


def _first_of(checks: Sequence[MoveCheck], obstacles_of: Callable[[MoveCheck], Iterable[Obstacle]]) -> str:
    first = checks[0]
    reasons = [f"{one.kind}: {one.text}" for one in obstacles_of(first)]
    more = f" (and {len(checks) - 1} more moves)" if len(checks) > 1 else ""
    return f"{first.vm} from {first.source} to {first.destination}{more}: {'; '.join(reasons)}"


def _move_advice(refused: Iterable[MoveCheck]) -> str:
    if any(one.kind == _INTRANET for check in refused for one in check.errors):
        return (
            "The switch has no physical NIC: set vCenter's advanced setting"
            " config.migrate.test.CompatibleNetworks.VMOnVirtualIntranet to false, or add a physical NIC after the"
            " uplinks' VLAN range leaves out the managers'."
        )
    return "Add the host to the distributed switch, and see that the switch is up there."
