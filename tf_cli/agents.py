"""What the vRouter agents of a site say of themselves, asked once each.

Called by `tfv routes`, `vifs`, `vrf`; each shows another part of the same answer. What comes back is each agent's own
view, so two hosts that differ are seen side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import urllib3

from tf_cli.settings import DaemonSettings, TfvSettings
from tf_reconcile.errors import ConfigError
from tf_runtime.settings import read_secret

TIMEOUT_S: Final = 5.0
AGENT: Final = "vrouter-agent"
EXIT_TROUBLE: Final = 1
_OK: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAnswer:
    """One host's vRouter agent, by its place among the configuration's daemons.

    `trouble`: why there is no `status`; empty when there is one.
    """

    host: str
    index: int
    status: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""


def ask_agents(settings: TfvSettings, *, file: str, only_host: str | None = None) -> list[AgentAnswer]:
    """Return the answer of every vRouter agent of the configuration, or of that host's.

    A daemon that does not answer is in the list with its trouble: it may be an agent. Raises `ConfigError` for a bad
    token file, and for a host that no daemon of the configuration works for.
    """
    hosts = {daemon.host for daemon in settings.daemons if daemon.host is not None}
    if only_host is not None and only_host not in hosts:
        raise ConfigError(
            "no daemon of the configuration works for that host",
            file=file,
            key="--host",
            value=only_host,
            allowed=", ".join(sorted(hosts)) or "a host that is named in daemons",
        )
    answers = [
        _ask(daemon, "/status", {}, file=file, index=index)
        for index, daemon in enumerate(settings.daemons)
        if daemon.host is not None and only_host in {None, daemon.host}
    ]
    return [answer for answer in answers if answer.trouble or answer.status.get("daemon") == AGENT]


def ask_again(
    settings: TfvSettings, answer: AgentAnswer, path: str, *, query: Mapping[str, str], file: str
) -> AgentAnswer:
    """Return what the agent that gave `answer` says at another path than `/status`."""
    return _ask(settings.daemons[answer.index], path, query, file=file, index=answer.index)


def _ask(daemon: DaemonSettings, path: str, query: Mapping[str, str], *, file: str, index: int) -> AgentAnswer:
    headers = {}
    if daemon.token_file is not None:
        token = read_secret(Path(daemon.token_file), file=file, key=f"daemons[{index}].token_file")
        headers = {"Authorization": f"Bearer {token}"}
    host = daemon.host or ""
    with urllib3.PoolManager(headers=headers, timeout=TIMEOUT_S, retries=False) as pool:
        try:
            answer = pool.request("GET", f"{daemon.url}{path}", fields=dict(query))
        except urllib3.exceptions.HTTPError as error:
            return AgentAnswer(host=host, index=index, trouble=f"{daemon.name} does not answer: {error}")
    if answer.status != _OK:
        said = answer.data.decode(errors="replace").strip()
        return AgentAnswer(host=host, index=index, trouble=f"HTTP {answer.status} from {daemon.url}{path}: {said}")
    return AgentAnswer(host=host, index=index, status=json.loads(answer.data))


def troubles(answers: Sequence[AgentAnswer]) -> list[str]:
    """Return a line for each that did not answer."""
    return [f"no answer from {answer.host}: {answer.trouble}" for answer in answers if answer.trouble]
