"""Metadata by TLS: each side proves who it is, or the guest gets an error and the service hears nothing."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.guests import make_placement
from tf_reconcile.errors import ConfigError
from vrouter_vm.guest_services.metadata import MetadataProxy, Tls, Visit
from vrouter_vm.settings import AgentSettings, load_agent_settings, metadata_tls


def make_certificate(folder: Path, name: str, alternative: str) -> dict[str, str]:
    """Make a certificate that vouches for itself; return the two settings that name its files."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    files = {"certificate_file": str(folder / f"{name}.pem"), "key_file": str(folder / f"{name}.key")}
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"]
    command += ["-out", files["certificate_file"], "-keyout", files["key_file"]]
    subprocess.run(command, check=True, capture_output=True)
    return files


class Nova:
    """A metadata service that serves nobody without the right certificate."""

    def __init__(self, own: dict[str, str], trusted: str) -> None:
        self.requests: list[tuple[str, str]] = []
        nova = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                subject: Any = self.connection.getpeercert()["subject"]
                nova.requests.append((self.path, subject[0][0][1]))
                self.send_response(200)
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(b"hello")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own["certificate_file"], own["key_file"])
        context.load_verify_locations(trusted)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # in later ones a client hears of a refusal only when it reads
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.server.server_bind()
        self.server.server_activate()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("tls")
    return {
        "nova": make_certificate(folder, "nova", "IP:127.0.0.1,DNS:nova.example"),
        "agent": make_certificate(folder, "agent", "DNS:agent.example"),
    }


@pytest.fixture
def nova(files: dict[str, dict[str, str]]) -> Iterator[Nova]:
    running = Nova(files["nova"], files["agent"]["certificate_file"])
    yield running
    running.server.shutdown()
    running.server.server_close()


def load(folder: Path, **tls: str) -> AgentSettings:
    file = folder / "agent.yaml"
    settings = {"trunk": {"interface": "eth1"}, "tf": {"servers": ["http://192.0.2.10:8082"]}}
    file.write_text(yaml.safe_dump({**settings, "guest_services": {"metadata_tls": tls}}))
    return load_agent_settings(file)


@contextmanager
def asked(nova: Nova, tls: Tls, *, service_name: str = "") -> Iterator[bytes]:
    """What a guest reads that asks for /latest."""
    proxy = MetadataProxy(b"secret", lambda what: None, tls=tls)
    near, far = socket.socketpair()
    targets = [("127.0.0.1", int(nova.server.server_address[1]))]
    with near:
        near.settimeout(20.0)
        port = make_placement().port
        proxy.serve(
            Visit(connection=far, address=ip_address("10.1.1.11"), port=port, targets=targets, host_name=service_name)
        )
        near.sendall(b"GET /latest HTTP/1.1\r\nConnection: close\r\n\r\n")
        said = b""
        while part := near.recv(4096):
            said += part
        yield said
    proxy.close()


def make_tls(folder: Path, *, server_name: str = "", **tls: str) -> Tls:
    context = metadata_tls(load(folder, **tls), file="agent.yaml")
    assert context is not None
    return Tls(context=context, server_name=server_name)


@pytest.mark.parametrize(
    ("server_name", "service_name"), [("", ""), ("", "nova.example"), ("nova.example", "elsewhere.example")]
)
def test_metadata_comes_from_the_service_that_it_is_asked_of(
    files: dict[str, dict[str, str]], nova: Nova, tmp_path: Path, server_name: str, service_name: str
) -> None:
    tls = make_tls(tmp_path, ca_file=files["nova"]["certificate_file"], server_name=server_name, **files["agent"])
    with asked(nova, tls, service_name=service_name) as said:
        assert said.endswith(b"hello")
    assert nova.requests == [("/latest", "agent")]


@pytest.mark.parametrize(
    ("trusted", "shown", "server_name"),
    [
        pytest.param("agent", "agent", "", id="somebody whom nobody vouches for"),
        pytest.param("nova", "agent", "other.example", id="somebody of another name"),
        pytest.param("nova", "", "", id="without a certificate of ours"),
        pytest.param("nova", "nova", "", id="with one that the service does not trust"),
    ],
)
def test_a_service_that_is_not_the_right_one_or_does_not_take_us_hears_nothing(
    files: dict[str, dict[str, str]], nova: Nova, tmp_path: Path, *, trusted: str, shown: str, server_name: str
) -> None:
    own = files[shown] if shown else {}
    tls = make_tls(tmp_path, ca_file=files[trusted]["certificate_file"], server_name=server_name, **own)
    with asked(nova, tls) as said:
        assert b" 502 " in said.splitlines()[0]
    assert nova.requests == []


def test_without_the_section_metadata_goes_by_plain_http(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump({"trunk": {"interface": "eth1"}, "tf": {"servers": ["http://192.0.2.10:8082"]}}))
    assert metadata_tls(load_agent_settings(file), file=str(file)) is None


@pytest.mark.parametrize("key", ["ca_file", "certificate_file"])
@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_file_that_is_none_is_named(tmp_path: Path, key: str, content: str | None) -> None:
    path = tmp_path / "some.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as raised:
        metadata_tls(load(tmp_path, **{key: str(path)}), file="agent.yaml")
    assert raised.value.key == f"guest_services.metadata_tls.{key}"
    assert raised.value.value == str(path)
    assert "PEM" in str(raised.value.allowed)
