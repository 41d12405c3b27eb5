"""One site of two hosts with all daemons for the tests of this folder; every test brings its own guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.site import Site
from tests.contract.scenarios.guests import A, B, Guests, start_plugin


@pytest.fixture(scope="package")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("scenarios")
    networks = {"blue": "10.1.0.0/16", "red": "10.2.0.0/16"}
    settings = {"vlan": {"ranges": [[101, 200]]}, "full_period_s": 15.0}
    with Site(folder, networks=networks, manager_settings=settings) as site:
        plugin = start_plugin(site, folder)
        for manager in site.managers.values():
            manager.start()
        for manager in site.managers.values():
            manager.wait_in_sync()
        yield site
        plugin.end()


@pytest.fixture
def guests(running_site: Site) -> Iterator[Guests]:
    """The site, without guests of earlier tests; whatever a test broke is whole again afterwards."""
    yield Guests(running_site)
    running_site.simulator.clear_rules()
    for at in ("vcenter", A, B):
        running_site.simulator.thaw(at)
    running_site.simulator.set_migration_delay(0)
    running_site.simulator.set_port_reset(is_on=True)
    for manager in running_site.managers.values():
        if not manager.status():
            manager.end()
            manager.start()
    Guests(running_site).remove_all()
