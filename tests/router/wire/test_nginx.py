"""The same corpus of requests goes to nginx, as a second opinion: every difference is written down with its reason.

corpus/nginx.txt holds the differences, grouped under their reasons: `NAME: what nginx does`. A difference that is
not there fails, and so does one that is there and no longer is one. Compared is what reaches the upstream (method,
target, host, fields, body) or how a request is refused; not the fields that each proxy adds or takes by design.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import h11
import pytest

from tests.router.rig import free_port
from tests.router.wire.cases import CORPUS, REQUESTS, RequestCase, forwarded_requests, request_case

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
KNOWN_VERSION = "nginx/1.22."
"""Debian 12's; other versions differ in other ways."""

CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    # As far as nginx can be told to do what the router does.
    client_max_body_size 0; underscores_in_headers on; merge_slashes off;
    large_client_header_buffers 4 66k; client_header_timeout 2s; keepalive_timeout 2s;
    # Or else what the client sent beyond a refusal resets the connection, and with luck takes the refusal along.
    lingering_close always;
    upstream sets {{ server 127.0.0.1:{upstream}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port}; server_name set;
        location / {{
            proxy_pass http://sets; proxy_http_version 1.1; proxy_request_buffering off;
            proxy_set_header Host $host; proxy_set_header Connection ""; proxy_next_upstream off;
        }}
    }}
}}
"""

MARK = b"GET /mark HTTP/1.1\r\nHost: mark\r\nConnection: close\r\n\r\n"

# What each proxy sets, drops or passes by its own rules: no matter of framing.
OWN = frozenset(
    b"content-length transfer-encoding connection x-request-id traceparent x-forwarded-for x-forwarded-proto".split()
)


def _upstream(requests: list[str]) -> asyncio.Protocol:
    """A recording upstream, with another parser than either proxy's."""

    class Upstream(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
            self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            self.body = b""
            self.head: h11.Request | None = None

        def data_received(self, data: bytes) -> None:
            self.parser.receive_data(data)
            while True:
                try:
                    event = self.parser.next_event()
                except h11.RemoteProtocolError as error:
                    requests.append(f"no HTTP to the upstream: {error}")
                    self.transport.close()
                    return
                if isinstance(event, h11.Request):
                    self.head = event
                    self.body = b""
                elif isinstance(event, h11.Data):
                    self.body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    assert self.head is not None
                    requests.append(described(self.head, self.body))
                    self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                    self.parser.send(h11.Response(status_code=204, headers=[]))
                    self.parser.send(h11.EndOfMessage())
                    if self.parser.our_state is not h11.DONE:
                        self.transport.close()
                        return
                    self.parser.start_next_cycle()
                else:
                    return

    return Upstream()


def described(head: h11.Request, body: bytes) -> str:
    """A request in one line, without what either proxy does by its own rules."""
    fields = [
        b"%b: %b" % (name, value) for name, value in head.headers if name != b"host" and name not in OWN
    ]
    host = dict(head.headers).get(b"host", b"-")
    parts = [head.method, head.target, host, *sorted(fields), body]
    text = " | ".join(part.decode("latin-1").encode("unicode_escape").decode() for part in parts).rstrip(" |")
    text = re.sub(r"(.)\1{99,}", r"\1\1…", text)
    return text if len(text) < 300 else text[:100] + "…"


def by_router(case: RequestCase) -> list[str]:
    """What the router does, as the corpus says, in the same words."""
    outcome = [described(head, body) for head, body in forwarded_requests(case)]
    return outcome + ([f"refused {case.status}"] if case.status is not None else [])


async def by_nginx(case: RequestCase, port: int, requests: list[str]) -> list[str]:
    """What nginx does with a case: the requests that reached the upstream, and the refusal, if one came."""
    requests.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = b""
    try:
        # Its end makes nginx answer, or give up, at once; a head or body that is not complete is refused then.
        # All in one piece: whether nginx refuses a request before or after it hears of the next is no difference.
        writer.write(case.sent + MARK)
        async with asyncio.timeout(10):
            while some := await reader.read(65536):
                answers += some
    except ConnectionError:
        pass
    finally:
        writer.close()
    outcome = [line for line in requests if not line.startswith("GET | /mark | mark")]
    statuses = re.findall(rb"(?m)^HTTP/1\.1 (\d{3}) |^<head><title>(\d{3}) ", answers)
    refused = [status for a, b in statuses if (status := int(a or b)) >= 300]
    return outcome + ([f"refused {refused[0]}"] if refused else [])


def difference(router: list[str], nginx: list[str]) -> str | None:
    """What nginx does otherwise, in a few words; None: the same."""
    if router == nginx:
        return None
    forwarded = [line for line in nginx if not line.startswith("refused")]
    words = [*forwarded] if forwarded != [line for line in router if not line.startswith("refused")] else []
    words += [line for line in nginx if line.startswith("refused")]
    return "; ".join(words) or "no refusal"


def known_differences() -> dict[str, str]:
    known: dict[str, str] = {}
    reason = ""
    for line in (CORPUS / "nginx.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            reason = line
        elif line:
            name, _, does = line.partition(": ")
            assert reason, f"{name} stands under no reason"
            assert name not in known, f"{name} is there twice"
            known[name] = does
    return known


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    assert NGINX is not None
    port = free_port()
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, upstream=upstream, port=port))
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def nginx_version() -> str:
    assert NGINX is not None
    return subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr.strip()


async def _until_it_listens(port: int) -> None:
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    pytest.fail("nginx does not listen")


async def observed(folder: Path) -> dict[str, str]:
    """Every difference of this nginx, by the case's name."""
    requests: list[str] = []
    server = await asyncio.get_running_loop().create_server(lambda: _upstream(requests), "127.0.0.1", 0)
    found = {}
    async with server:
        with nginx(folder, server.sockets[0].getsockname()[1]) as port:
            await _until_it_listens(port)
            for path in REQUESTS:
                case = request_case(path)
                does = difference(by_router(case), await by_nginx(case, port, requests))
                if does is not None:
                    found[path.stem] = does
    return found


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian's nginx-light will do)")
async def test_every_difference_from_nginx_is_written_down(tmp_path: Path) -> None:
    if KNOWN_VERSION not in (version := nginx_version()):
        pytest.skip(f"the differences are written down for {KNOWN_VERSION}x, this is {version}")
    found = await observed(tmp_path)
    known = known_differences()
    assert found == known


def test_differences_speak_of_cases_that_exist() -> None:
    assert known_differences().keys() <= {path.stem for path in REQUESTS}
