"""Asks the parts that run. Each function may raise `OSError` or `CannotTell`."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ops.doctor.asking import TIMEOUT_S, Answer, NoAnswer, ask
from ops.doctor.finding import CannotTell
from ops.doctor.parts import Node, Port, Ready, Router, Socket
from sets.executor.link.names import Certificates, node_name

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

_SAMPLE: Final = re.compile(r"^(gc_node_up|gc_node_info)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


def reachable(host: str) -> str:
    """Return the host at which this machine reaches a part that listens on `host`."""
    return _ANY.get(host, host)


def url_of(host: str, port: int) -> str:
    host = reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def http_port(host: str, port: int, ours: Mapping[str, str]) -> Port:
    """Look who listens; `ours` are headers that the part's answer to /readyz bears."""
    try:
        answer = ask(url_of(host, port), "/readyz")
    except NoAnswer:
        return bindable(host, port)
    except CannotTell:
        return Port.TAKEN
    return Port.OURS if all(answer.headers.get(key) == value for key, value in ours.items()) else Port.TAKEN


def tls_port(host: str, port: int) -> Port:
    """Look who listens; a part that speaks TLS is taken for ours, as its certificate is checked elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((reachable(host), port), TIMEOUT_S) as plain:
            try:
                context.wrap_socket(plain).close()
            except ssl.SSLError as error:
                # A server that wants a certificate of ours is one of ours.
                return Port.OURS if "CERTIFICATE_REQUIRED" in str(error.reason) else Port.TAKEN
            except OSError:
                return Port.TAKEN
        return Port.OURS
    except OSError:
        return bindable(host, port)


def bindable(host: str, port: int) -> Port:
    """Try whether a program could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            kinds = {
                errno.EADDRINUSE: Port.TAKEN,
                errno.EADDRNOTAVAIL: Port.FOREIGN,
                errno.EACCES: Port.DENIED,
                errno.EPERM: Port.DENIED,
            }
            if error.errno in kinds:
                return kinds[error.errno]
            raise CannotTell(f"{host}:{port}: {error.strerror}") from error
    return Port.FREE


def readiness(url: str) -> Answer:
    """Ask a set whether it is ready."""
    return ask(url, "/readyz")


def ready_of(answer: Answer) -> Ready:
    return Ready.of(answer.status, answer.object())


def nodes(url: str, token: str | None) -> list[Node]:
    """Read a set's machines from its metrics. Raises `CannotTell` where a token is needed, or the set tells none."""
    answer = ask(url, "/metrics", {"Authorization": f"Bearer {token}"} if token else {})
    if answer.status in (401, 403):
        raise CannotTell("the set shows its machines to operators only: set GC_OPERATOR_TOKEN")
    builds: dict[str, str] = {}
    up: dict[str, bool] = {}
    for name, labels, value in _SAMPLE.findall(answer.body.decode("utf-8", "replace")):
        told = dict(_LABEL.findall(labels))
        if name == "gc_node_up":
            up[told["node"]] = float(value) > 0
        else:
            builds[told["node"]] = told.get("build", "")
    if not up and not builds:
        raise CannotTell("this set tells nothing of its machines")
    return [Node(name, is_up, builds.get(name, "")) for name, is_up in sorted(up.items())]


def registrar(path: str) -> Socket:
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(TIMEOUT_S)
            door.connect(path)
    except OSError as error:
        return Socket(path, False, error.strerror or str(error))
    return Socket(path, True)


def router(url: str, token: str | None) -> Router:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = ask(url, "/status", headers)
    if answer.status in (401, 403):
        raise CannotTell("the router wants its admin token: set GC_ADMIN_TOKEN")
    if answer.status != 200:
        raise CannotTell(f"{url} answers {answer.status}; is it a router's admin address?")
    return Router(answer.object())


def executor(folder: Path, node: str, host: str, port: int) -> str:
    """Meet an executor as its set does, and say nothing; return "" if its certificate is right, else what is wrong."""
    try:
        context = Certificates(folder).for_set()
    except OSError as error:
        raise CannotTell(str(error)) from error
    try:
        with (
            socket.create_connection((host, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=node_name(node)),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused: {error.verify_message}"
    except ssl.SSLError as error:
        return f"TLS fails: {error.reason}"
    except OSError as error:
        return error.strerror or str(error)
