from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest

from tf_cli.agents import ask_agents, troubles
from tf_cli.settings import TfvSettings
from tf_reconcile.errors import ConfigError


@pytest.fixture
def agent_url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"daemon": "vrouter-agent", "ports": {}}).encode()
            self.send_response(200 if self.path == "/status" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def settings(*daemons: dict[str, Any]) -> TfvSettings:
    account = {"host": "vcenter", "user": "x", "password_file": "y"}
    return msgspec.convert(
        {"vcenter": account, "dvswitch": "dvs", "tf": {"servers": ["http://tf:8082"]}, "daemons": daemons}, TfvSettings
    )


def test_each_hosts_agent_is_asked_and_one_that_is_down_is_named(agent_url: str) -> None:
    site = settings(
        {"name": "vcenter-plugin", "url": "http://127.0.0.1:9"},
        {"name": "vrouter-agent esx-a", "host": "esx-a", "url": agent_url},
        {"name": "vrouter-agent esx-b", "host": "esx-b", "url": "http://127.0.0.1:9"},
    )
    first, second = ask_agents(site, file="tfv.yaml")
    assert (first.host, first.status["ports"], first.trouble) == ("esx-a", {}, "")
    assert second.host == "esx-b"
    assert second.trouble.startswith("vrouter-agent esx-b does not answer")
    assert troubles([first, second]) == [f"no answer from esx-b: {second.trouble}"]
    assert [answer.host for answer in ask_agents(site, file="tfv.yaml", only_host="esx-a")] == ["esx-a"]


def test_a_host_that_no_daemon_works_for_is_refused_with_those_there_are(agent_url: str) -> None:
    site = settings({"name": "vrouter-agent esx-a", "host": "esx-a", "url": agent_url})
    with pytest.raises(ConfigError, match=r"--host.*esx-z.*esx-a"):
        ask_agents(site, file="tfv.yaml", only_host="esx-z")
