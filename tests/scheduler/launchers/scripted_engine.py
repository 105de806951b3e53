"""An engine that answers as a test says: for what a real one says only after it was killed at the wrong moment."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = tuple[int, str]
"""HTTP status and the engine's message."""

REMOVED: Answer = (204, "")


class ScriptedEngine:
    """Listens on a unix socket; lists `containers`, and answers each removal by `removal`, called with a name.

    A removal that is answered with 204 takes the container off the list.
    """

    def __init__(self, socket: Path) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.removal: Callable[[str], Answer] = lambda name: REMOVED
        self.asked: list[str] = []
        """Names whose removal was asked for, in order."""
        self.host = f"unix://{socket}"
        self.ended = threading.Event()
        self._server = _Server(str(socket), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def add(self, name: str, labels: dict[str, str], state: str = "dead") -> None:
        named = {f"org.general-compute.{key}": value for key, value in labels.items()}
        self.containers[name] = {"Id": name, "Names": [f"/{name}"], "Labels": named, "State": state}

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What the handler asks

    def listed(self, wanted: list[str]) -> list[dict[str, Any]]:
        labels = [label.partition("=") for label in wanted]
        return [
            entry
            for entry in list(self.containers.values())
            if all(entry["Labels"].get(name) == value for name, _, value in labels)
        ]

    def remove(self, name: str) -> Answer:
        self.asked.append(name)
        answer = self.removal(name)
        if answer == REMOVED:
            self.containers.pop(name, None)
        return answer


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def _handler_of(engine: ScriptedEngine) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path.endswith("/version"):
                self._answer(200, {"ApiVersion": "1.41", "Version": "20.10", "Arch": "amd64"})
            elif path.endswith("/info"):
                self._answer(200, {"CgroupVersion": "2"})
            elif path.endswith("/containers/json"):
                filters = json.loads(urllib.parse.parse_qs(query)["filters"][0])
                self._answer(200, engine.listed(filters["label"]))
            elif path.endswith("/events"):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                engine.ended.wait()
                self.close_connection = True
            else:
                self._answer(200, {})

        def do_DELETE(self) -> None:
            status, message = engine.remove(self.path.partition("?")[0].rpartition("/")[2])
            self._answer(status, {"message": message} if message else None)

        def _answer(self, status: int, content: Any) -> None:
            body = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
