"""Measures TLS for clients: its cost for a small request, a large body and a handshake, compared with nginx.

TLS has no target: the lines inform, and always count as reached.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from ops.bench.figures import Figure
from ops.bench.stack import BenchFailed, free_port
from ops.bench_router import programs, proxies
from ops.bench_router.bench import Bench, ratio, turns
from ops.bench_router.load import CLIENTS, GET, PATIENCE_S, POST, wrk_result
from ops.bench_router.machine import pinned
from ops.bench_router.proxies import Place
from ops.bench_router.server import Server

BODY_BYTES: Final = 100_000_000
SECONDS: Final = 2.0
CIPHER: Final = "TLS_AES_256_GCM_SHA384"
"""The cipher that both choose with clients of OpenSSL; each is asked, and the answers are compared."""
KINDS: Final = ("small GET", "handshake", "100 MB GET", "100 MB POST")


@dataclass(frozen=True)
class TlsShot:
    """A measurement. `per_s`: requests or handshakes, or megabytes of bodies."""

    per_s: float
    cpu_us: float
    """CPU time of the proxy for each request, handshake (with the request after it) or body."""


Shots = Mapping[str, Mapping[str, list[TlsShot]]]


class TlsServer(Server):
    """A server whose clients use TLS, without checking its certificate."""

    def answers(self) -> bool:
        try:
            url = f"https://127.0.0.1:{self.port}/openapi.json"
            with urllib.request.urlopen(url, timeout=2, context=unverified()) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def cipher(self) -> str:
        """Return the cipher that it agrees on."""
        with unverified().wrap_socket(socket.create_connection(("127.0.0.1", self.port), 5)) as sock:
            agreed = sock.cipher()
            return str(agreed[0]) if agreed else "none"


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate and its key for the bench, on the most common curve."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise BenchFailed("openssl is missing: install the Debian package openssl")
    cert, key = folder / "cert.pem", folder / "key.pem"
    done = subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=bench", "-keyout", key, "-out", cert],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchFailed(f"openssl made no certificate: {done.stderr}")
    return cert, key


def nginx(place: Place, cert: Path, key: Path) -> TlsServer:
    """nginx as in the other parts of the bench, with TLS."""
    proxies.nginx(place, unbuffered=proxies.UNBUFFERED)  # Writes the configuration.
    config = place.folder / "nginx.conf"
    plain = f"listen 127.0.0.1:{place.port} "
    text = config.read_text()
    if plain not in text:
        raise BenchFailed("nginx's configuration is not what this part of the bench knows")
    tls = f"ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;"
    config.write_text(text.replace(plain, f"{tls} {plain} ssl "))
    command = pinned(place.core, programs.debian("nginx"), "-p", str(place.folder), "-c", str(config))
    return TlsServer("nginx TLS", command, place.folder, place.port, access_log=place.access_log)


def router(place: Place, cert: Path, key: Path) -> TlsServer:
    proxies.router(place)  # Writes the configuration.
    command = proxies.router_command(place, place.folder / "router.yaml", free_port())
    command += ["--tls-cert", str(cert), "--tls-key", str(key)]
    return TlsServer(
        "router TLS", pinned(place.core, *command), place.folder, place.port, access_log=place.access_log
    )


def tls(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Measure router and nginx with TLS, and both without for comparison."""
    cert, key = certificate(bench.folder)
    with ExitStack() as stack:
        servers: dict[str, Server] = dict(stack.enter_context(bench.proxies("router", "nginx-unbuffered")))
        for name, make in (("router TLS", router), ("nginx TLS", nginx)):
            place = Place(
                bench.folder / name.replace(" ", "-"), free_port(), bench.upstream.port, bench.cores.proxy
            )
            place.folder.mkdir(mode=0o755)
            try:
                servers[name] = stack.enter_context(make(place, cert, key))
            except BenchFailed as error:
                if name == "router TLS":
                    raise
                bench.say(f"{name}: skipped, {error}")
        for name, server in servers.items():
            if isinstance(server, TlsServer) and (agreed := server.cipher()) != CIPHER:
                bench.say(f"note: {name} agrees upon {agreed}")
        load = _Load(bench.cores.load, bench.folder)
        measures: dict[str, Callable[[Server], TlsShot]] = {
            "small GET": load.small,
            "handshake": load.handshakes,
            "100 MB GET": load.down,
            "100 MB POST": load.up,
        }
        shots: dict[str, dict[str, list[TlsShot]]] = {
            kind: {name: [] for name, server in servers.items() if kind != "handshake" or _by_tls(server)}
            for kind in KINDS
        }
        for server in servers.values():
            load.small(server)
        for number, names in turns(list(servers), rounds):
            for kind, of_kind in shots.items():
                for name in names:
                    if name in of_kind:
                        of_kind[name].append(measures[kind](servers[name]))
            bench.say(f"round {number + 1} of {rounds}")
        for server in servers.values():
            server.collect_log()
    for kind, of_kind in shots.items():
        unit = "MB/s" if "MB" in kind else "per s"
        told = ", ".join(
            f"{name} {median(shot.cpu_us for shot in each):,.1f} µs, {median(shot.per_s for shot in each):,.0f} {unit}"
            for name, each in of_kind.items()
        )
        bench.say(f"{kind}: {told}")
    yield from figures(shots)


def figures(shots: Shots) -> Iterator[Figure]:
    """Turn the rounds' measurements, by kind and server, into rows."""
    for kind, of_kind in shots.items():
        ours = of_kind["router TLS"]
        theirs = of_kind.get("nginx TLS")
        if theirs:
            value = ratio([shot.cpu_us for shot in ours], [shot.cpu_us for shot in theirs])
            yield told(f"TLS, {kind}: CPU, of nginx's", value)
            value = ratio([shot.per_s for shot in ours], [shot.per_s for shot in theirs])
            yield told(f"TLS, {kind}: per second, of nginx's", value)
        if plain := of_kind.get("router"):
            value = ratio([shot.cpu_us for shot in ours], [shot.cpu_us for shot in plain])
            yield told(f"TLS, {kind}: CPU, of the router without", value)


def told(what: str, value: float) -> Figure:
    """Make a row without a target."""
    return Figure(what, value, f"{value:.2f} ×", "none set", True)


def _by_tls(server: Server) -> bool:
    return isinstance(server, TlsServer)


class _Load:
    """wrk and curl, on their core: the load of the other parts does not support TLS."""

    def __init__(self, core: int, folder: Path) -> None:
        self._core = core
        self._wrk = programs.debian("wrk")
        curl = shutil.which("curl")
        if curl is None:
            raise BenchFailed("curl is missing: install the Debian package curl")
        self._curl = curl
        self._body = folder / "body"
        with self._body.open("wb") as body:
            body.truncate(BODY_BYTES)

    def small(self, server: Server) -> TlsShot:
        return self._many(server)

    def handshakes(self, server: Server) -> TlsShot:
        """Send one request on each connection."""
        return self._many(server, "-H", "Connection: close")

    def down(self, server: Server) -> TlsShot:
        return self._body_once(server, f"{GET}/stdout?size={BODY_BYTES}", "size_download")

    def up(self, server: Server) -> TlsShot:
        return self._body_once(
            server, POST, "size_upload", "-X", "POST", "-H", "Expect:", "-T", str(self._body)
        )

    def _many(self, server: Server, *options: str) -> TlsShot:
        command = [self._wrk, "-t1", f"-c{CLIENTS}", f"-d{SECONDS:.0f}s", "--timeout", "20s", *options]
        before = server.cpu_us()
        text = self._run([*command, f"{_scheme(server)}://127.0.0.1:{server.port}{GET}"])
        spent_us = server.cpu_us() - before
        requests, per_s = wrk_result(text, server.name)
        return TlsShot(per_s, spent_us / requests)

    def _body_once(self, server: Server, path: str, counted: str, *options: str) -> TlsShot:
        form = f'{{"status": %{{http_code}}, "bytes": %{{{counted}}}, "s": %{{time_total}}}}'
        command = [self._curl, "-q", "-sSk", "--http1.1", "-o", "/dev/null", "-w", form, *options]
        before = server.cpu_us()
        result = json.loads(self._run([*command, f"{_scheme(server)}://127.0.0.1:{server.port}{path}"]))
        spent_us = server.cpu_us() - before
        if result["status"] != 200 or result["bytes"] != BODY_BYTES:
            raise BenchFailed(f"{server.name}: a body of 100 MB ended with {result}")
        return TlsShot(BODY_BYTES / 1e6 / result["s"], spent_us)

    def _run(self, command: list[str]) -> str:
        try:
            done = subprocess.run(
                pinned(self._core, *command), capture_output=True, text=True, check=False,
                timeout=SECONDS + PATIENCE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{Path(command[0]).name} did not end in time") from None
        if done.returncode:
            raise BenchFailed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def _scheme(server: Server) -> str:
    return "https" if _by_tls(server) else "http"
