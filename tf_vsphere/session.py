"""One login to one vCenter or ESXi, opened once and kept: version negotiation, login, relogin, keep-alive, logout.

Every daemon calls `connect` at its start and `Session.call` for each request. pyVmomi's process-wide state
(`SmartConnect`, `Disconnect`) is not touched, so one process can hold several sessions. A start costs two requests,
`RetrieveServiceContent` and `Login`: the content tells the server's version. The list of all versions that the server
speaks is a third one, for servers that are older or newer than what is known here.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

from pyVmomi import SoapAdapter, VmomiSupport, vim, vmodl

from tf_reconcile.errors import AgentError, BoundaryError, ConfigError, Rejected, Transient
from tf_vsphere import tls
from tf_vsphere.faults import translate, translated
from tf_vsphere.settings import VsphereSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

USER_AGENT = "tf-vsphere"
_VERSIONS_PATH = "/sdk/vimServiceVersions.xml"
_NAMESPACE = "urn:vim25"
_KNOWN = "vim25/"
"""Before the id of a version in pyVmomi's table of those it knows."""

_IDLE_CONNECTION_S = 60
_HTTP_OK = 200
_OPENING_VERSION = "6.7"
"""In which a server is asked who it is: old enough for those that are new, and new enough for those that are old."""

_PROBES = 3

_REFUSED_S = 960.0
"""How long a password that was refused is not tried again. vCenter locks an account for 5 minutes after five refused
logins, ESXi for 15 (`Security.AccountUnlockTime`), and there each further try begins them anew."""


class UndecodableError(HTTPException):
    """The server's answer does not fit the API's types, such as an enum value that is none."""


class _Stub(SoapAdapter.SoapStubAdapter):
    """pyVmomi's stub, with a time limit per call and a peer that is gone noticed by TCP itself.

    Its decoder's errors are told from bugs of the caller: values are checked when they are set.
    """

    def __init__(self, *, timeout_s: float, **arguments: Any) -> None:
        initialize: Any = super().__init__
        initialize(httpConnectionTimeout=timeout_s, **arguments)
        self._timeout_s = timeout_s
        self._patience = threading.local()

    @contextmanager
    def patience(self, timeout_s: float) -> Iterator[None]:
        """Within this block calls of this thread may stay without a word for `timeout_s` seconds."""
        self._patience.timeout_s = timeout_s
        try:
            yield
        finally:
            del self._patience.timeout_s

    def GetConnection(self) -> Any:
        """As in pyVmomi, with this thread's time limit."""
        take: Any = super().GetConnection
        connection = take()
        connection.timeout = getattr(self._patience, "timeout_s", self._timeout_s)
        if connection.sock is None:  # the server ended it after its last answer
            connection.connect()
        if isinstance(connection.sock, socket.socket):  # recorded answers in tests come without
            connection.sock.settimeout(connection.timeout)
            _probe_when_silent(connection.sock, self._timeout_s)
        return connection

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:
        """As in pyVmomi; raises `UndecodableError` when the answer cannot be decoded."""
        invoke: Any = super().InvokeMethod
        try:
            return invoke(mo, info, args, outerStub)
        except OSError:  # a certificate error is a ValueError too
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UndecodableError(f"{info.wsdlName}: {type(error).__name__}: {error}") from error


class Session:
    """A logged-in session that renews itself. Safe to use from several threads.

    A renewal that is refused says nothing about the call that wanted it, and is `Transient`: the same password is tried
    again after 16 minutes, another one at once.

    Managed objects got from it stay usable after a renewal. What lived inside the old session on the server does not:
    property collectors, filters and views; calls on those end in `Conflict`, and `generation` has grown.
    """

    def __init__(self, settings: VsphereSettings, context: ssl.SSLContext, *, file: str, section: str) -> None:
        self.settings = settings
        self.file = file
        self.section = section
        self.system = f"vSphere {settings.host}:{settings.port}"
        self._context = context
        self._stub: Any = None
        self._content: Any = None
        self._lock = threading.Lock()
        self._generation = 0
        self._last_call_s = 0.0
        self._refused: tuple[str, float] | None = None  # which password, and until when it is not tried again

    @property
    def content(self) -> Any:
        """The endpoint's `ServiceContent`, as read at the first login."""
        if self._content is None:
            raise Transient(self.system, "use the session", reason="not logged in yet")
        return self._content

    @property
    def instance_uuid(self) -> str:
        """`about.instanceUuid`: which vCenter this is, whatever its name or address."""
        return str(self.content.about.instanceUuid)

    @property
    def generation(self) -> int:
        """How many logins there were; collectors and views belong to one of them."""
        return self._generation

    def open(self) -> None:
        """Negotiate the version and log in. Raises `Transient` or `Rejected`; may be called again after a failure."""
        with self._lock:
            try:
                if self._content is None:
                    self._content = self._read_content()
                self._login()
            except AgentError:
                self._drop()
                raise

    def call(self, operation: str, subject: str, request: Callable[[], T], *, timeout_s: float | None = None) -> T:
        """Return `request()`, one SOAP call; a lost session is renewed and the call repeated once.

        The server may be silent for `timeout_s` seconds, by default those of the settings. The repetition is safe for
        writes too: a call that was not authenticated was not carried out. Raises `Transient`, `Conflict` or `Rejected`,
        which name `operation` and `subject`.
        """
        generation = self._generation
        self._last_call_s = time.monotonic()
        try:
            return self._ask(request, timeout_s)
        except vim.fault.NotAuthenticated:
            self._renew(generation)
        except (vmodl.MethodFault, OSError, HTTPException, ExpatError) as fault:
            raise translate(self.system, operation, subject, fault) from fault
        with translated(self.system, operation, subject):
            return self._ask(request, timeout_s)

    def _ask(self, request: Callable[[], T], timeout_s: float | None) -> T:
        stub = self._stub
        if stub is None or timeout_s is None:
            return request()
        with stub.patience(timeout_s):
            return request()

    def keep_alive(self) -> None:
        """Refresh the session if nothing was called for `keep_alive_s` seconds; a failure is left to the next call."""
        if self._content is None or time.monotonic() - self._last_call_s < self.settings.keep_alive_s:
            return
        try:
            self.call("keep the session alive", "", self.read_current_time)
        except AgentError as error:
            log.debug("keep-alive failed", extra={"reason": str(error)})

    def read_current_time(self) -> Any:
        """Return the server's clock: the cheapest call that wants a session."""
        return vim.ServiceInstance("ServiceInstance", self.content.rootFolder._stub).CurrentTime()

    def close(self) -> None:
        """Log out and give up the connections. Never fails: a session that cannot be ended expires by itself."""
        with self._lock:
            if self._content is None:
                return
            try:
                with translated(self.system, "log out", self.settings.user):
                    self._content.sessionManager.Logout()
            except BoundaryError as error:
                log.debug("logout failed", extra={"reason": str(error)})
            self._drop()

    def _drop(self) -> None:
        """Close the connections and forget what was read; `open` starts from nothing."""
        if self._stub is not None:
            self._stub.DropConnections()
        self._stub = self._content = None

    def _renew(self, generation: int) -> None:
        with self._lock:
            if self._generation == generation:  # nobody else has renewed it since our call
                if self._stub is not None:
                    self._stub.SetSessionId(None)  # a session that is alive after all would refuse a second login
                try:
                    self._login()
                except (Rejected, ConfigError) as error:
                    raise Transient(self.system, "log in again as", self.settings.user, error.reason) from error
                log.info("session renewed", extra={"host": self.settings.host})

    def _login(self) -> None:
        password = _read_password(self.settings, file=self.file, section=self.section)
        if self._refused is not None and self._refused[0] == password and time.monotonic() < self._refused[1]:
            reason = "its password was refused, and is not tried again for some minutes lest the account be locked"
            raise Transient(self.system, "log in as", self.settings.user, reason)
        try:
            with translated(self.system, "log in as", self.settings.user):
                self.content.sessionManager.Login(self.settings.user, password, None)
        except Rejected as error:
            if isinstance(error.__cause__, vim.fault.InvalidLogin):
                self._refused = (password, time.monotonic() + _REFUSED_S)
            raise
        self._refused = None
        self._generation += 1
        self._last_call_s = time.monotonic()

    def _read_content(self) -> Any:
        """Make the stub, in the newest version that both sides know, and return the `ServiceContent`."""
        self._stub = stub = _Stub(
            host=self.settings.host,
            port=self.settings.port,
            version=VmomiSupport.versionMap[f"{_KNOWN}{_OPENING_VERSION}"],
            sslContext=self._context,
            timeout_s=self.settings.timeout_s,
            connectionPoolTimeout=_IDLE_CONNECTION_S,
            customHeaders={"User-Agent": USER_AGENT},
        )
        try:
            content = self._retrieve_content(stub)
            version = VmomiSupport.versionMap.get(f"{_KNOWN}{content.about.apiVersion}")
        except Rejected:  # it does not speak the opening version (vmodl.fault.InvalidRequest)
            content = version = None
        set_version: Any = stub.ComputeVersionInfo
        set_version(version or self._ask_for_versions(stub))
        return content or self._retrieve_content(stub)

    def _retrieve_content(self, stub: Any) -> Any:
        with translated(self.system, "read the service content", ""):
            return vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()

    def _ask_for_versions(self, stub: Any) -> str:
        """Return the newest version that both sides know; raises `Rejected` when there is none."""
        with translated(self.system, "read the API versions", _VERSIONS_PATH):
            text = _get(stub, _VERSIONS_PATH)
        try:
            version = newest_version(text)
        except ElementTree.ParseError as error:
            raise Rejected(self.system, "read the API versions", _VERSIONS_PATH, f"not XML: {error}") from error
        if version is None:
            raise Rejected(self.system, "read the API versions", _VERSIONS_PATH, "none of them is known here")
        return version


def connect(settings: VsphereSettings, file: str, section: str) -> Session:
    """Return an open session, or say what in `file` under `section` is wrong.

    Raises `ConfigError` when the server cannot be reached, shows another certificate, or refuses the account.
    """
    try:
        context = tls.make_context(settings, file=file, section=section)
        session = Session(settings, context, file=file, section=section)
        session.open()
    except OSError as error:
        raise _unreachable(settings, str(error), file=file, section=section) from error
    except Transient as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise _untrusted(settings, error.__cause__, file=file, section=section) from error
        raise _unreachable(settings, error.reason, file=file, section=section) from error
    except BoundaryError as error:
        raise _refused(settings, error, file=file, section=section) from error
    return session


def newest_version(document: str) -> str | None:
    """Return pyVmomi's name of the first version in a `vimServiceVersions.xml` that it knows, or None.

    The document lists the server's own version first and then what it still speaks, newest first.
    """
    for namespace in ElementTree.fromstring(document).iter("namespace"):
        if namespace.findtext("name") != _NAMESPACE:
            continue
        ids = [namespace.findtext("version"), *(prior.text for prior in namespace.iter("version"))]
        for version_id in ids:
            name = VmomiSupport.versionMap.get(f"{_KNOWN}{version_id}")
            if name is not None:
                return str(name)
    return None


def _probe_when_silent(sock: socket.socket, timeout_s: float) -> None:
    """Let the kernel give up a peer that acknowledges nothing, after about two time limits (tcp(7), half-open)."""
    probe_s = max(1, int(timeout_s / _PROBES))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(timeout_s)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def _get(stub: Any, path: str) -> str:
    """Return the text at `path`, over a connection that the stub then goes on using."""
    connection = stub.GetConnection()
    try:
        connection.request("GET", path, headers={"User-Agent": USER_AGENT})
        response = connection.getresponse()
        body: bytes = response.read()
    except (OSError, HTTPException):
        connection.close()
        raise
    if response.status != _HTTP_OK:
        connection.close()
        raise HTTPException(f"{response.status} {response.reason}")
    stub.ReturnConnection(connection)
    return body.decode()


def _read_password(settings: VsphereSettings, *, file: str, section: str) -> str:
    try:
        lines = Path(settings.password_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise _bad_password_file(settings, f"cannot read the password: {reason}", file, section) from error
    if not lines or not lines[0]:
        raise _bad_password_file(settings, "the password is empty", file, section)
    return lines[0]


def _bad_password_file(settings: VsphereSettings, reason: str, file: str, section: str) -> ConfigError:
    return ConfigError(
        reason,
        file=file,
        key=f"{section}.password_file",
        value=settings.password_file,
        allowed="a readable file whose first line is the password",
    )


def _unreachable(settings: VsphereSettings, reason: str, *, file: str, section: str) -> ConfigError:
    return ConfigError(
        f"cannot reach the vSphere API: {reason}",
        file=file,
        key=f"{section}.host",
        value=f"{settings.host}:{settings.port}",
        allowed="host and port of a vCenter or ESXi that answers from this machine",
    )


def _untrusted(
    settings: VsphereSettings, cause: ssl.SSLCertVerificationError, *, file: str, section: str
) -> ConfigError:
    return ConfigError(
        f"the certificate of {settings.host}:{settings.port} is not trusted: {cause.verify_message}",
        file=file,
        key=f"{section}.ca_file",
        value=settings.ca_file,
        allowed="a PEM file with the authority that signed it, or its own thumbprint in thumbprint_sha256",
    )


def _refused(settings: VsphereSettings, error: BoundaryError, *, file: str, section: str) -> ConfigError:
    if not isinstance(error.__cause__, vim.fault.InvalidLogin):
        return ConfigError(str(error), file=file, key=f"{section}.host", value=settings.host, allowed="a vSphere API")
    return ConfigError(
        f"{settings.host} refused user name or password",
        file=file,
        key=f"{section}.user",
        value=settings.user,
        allowed=f"an account of that system whose password is in {section}.password_file",
    )
