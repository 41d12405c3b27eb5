from __future__ import annotations

import pytest

from tests.unit.tf_cli_preflight.facts import NOW, POLICY, host, site, switch, trunk, trunk_nic
from tf_cli.preflight.model import Underlay
from tf_cli.preflight.site_verdicts import judge_site
from tf_cli.preflight.wording import few


@pytest.mark.parametrize(
    ("texts", "shown"),
    [([], ""), (["a"], "a"), (["a", "b", "c", "d"], "a; b; c; d"), (list("abcdef"), "a; b; c; d and 2 more")],
)
def test_long_lists_are_cut(texts: list[str], shown: str) -> None:
    assert few(texts, "; ") == shown


def test_a_line_stays_short_on_a_site_where_everything_is_wrong_on_every_host() -> None:
    names = [f"esx-{number:04}" for number in range(1000)]
    nics = tuple(
        trunk_nic(name, mac="00:00:00:00:00:00", underlays=(Underlay(network="u", mtu_bytes=1500),)) for name in names
    )
    facts = switch(
        hosts=tuple(host(name, is_connected=False, is_locked_down=True, pnics=("vmnic0",)) for name in names),
        trunks=(trunk(nics=(*nics, *nics)),),
    )
    lines = judge_site(site(switch=facts), POLICY, now=NOW)
    assert max(len(line.found) for line in lines) < 300
