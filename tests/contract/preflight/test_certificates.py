from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.simulator import Simulator
from tf_cli.preflight.certificates import read_certificate
from tf_cli.preflight.model import CertificateFacts, Unknown

EXPIRED = Path(__file__).parents[2] / "data" / "preflight" / "expired-test-server.pem"
"""A key and its self-signed certificate, valid in 2020 only."""


@pytest.fixture
def expired_server() -> Iterator[tuple[str, int]]:
    """A TLS server that shows the expired certificate and says nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(EXPIRED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context))
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:  # the listener was shut down
            return
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:  # a client may just go
            secured.recv(1)


def test_an_expired_certificate_is_read_with_its_dates(expired_server: tuple[str, int]) -> None:
    facts = read_certificate(*expired_server, timeout_s=5.0)
    assert isinstance(facts, CertificateFacts)
    assert facts.not_before == datetime(2020, 1, 1, tzinfo=UTC)
    assert facts.not_after == datetime(2021, 1, 1, tzinfo=UTC)


def test_a_valid_certificate_is_the_one_that_the_server_has(simulator: Simulator) -> None:
    endpoint = simulator.vcenter
    facts = read_certificate(endpoint.host, endpoint.port, timeout_s=5.0, is_pinned=True)
    assert isinstance(facts, CertificateFacts)
    assert facts.sha256 == endpoint.sha256
    assert facts.not_before < datetime.now(UTC) < facts.not_after
    assert (facts.is_verified, facts.is_pinned) == (True, True)


def test_nobody_at_the_address_leaves_the_certificate_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    facts = read_certificate("127.0.0.1", port, timeout_s=5.0)
    assert isinstance(facts, Unknown)
    assert str(port) in facts.reason


def test_a_server_without_tls_leaves_the_certificate_unknown(simulator: Simulator) -> None:
    host, _, port = simulator.control.rpartition(":")
    assert isinstance(read_certificate(host, int(port), timeout_s=5.0), Unknown)
