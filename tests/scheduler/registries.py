"""Registries for tests: Debian's docker-registry, a scripted one that misbehaves, and images to push to either."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.ports import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Built(msgspec.Struct, frozen=True):
    """An image as a registry stores it: its manifest, and its blobs by digest."""

    manifest: bytes
    blobs: dict[str, bytes]
    media_type: str = MANIFEST

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def built(config: object, *layers: bytes, architecture: str = "amd64", **fields: Any) -> Built:
    """An image with this configuration and these layers, which are tar archives."""
    packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        **fields,
    }
    content = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(content), "size": len(content)},
        "layers": [{"mediaType": LAYER, "digest": digest_of(each), "size": len(each)} for each in packed],
    }
    return Built(
        json.dumps(manifest).encode(),
        {digest_of(content): content} | {digest_of(each): each for each in packed},
    )


def index_of(**images: Built) -> Built:
    """An index of images by their architecture, and with an attestation, as BuildKit pushes it."""
    entries = [
        {
            "mediaType": MANIFEST,
            "digest": image.digest,
            "size": len(image.manifest),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, image in images.items()
    ]
    unknown = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}}
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [unknown, *entries]}).encode()
    return Built(content, {}, INDEX)


def push(host: str, repository: str, tag: str, image: Built, client: httpx.Client | None = None) -> str:
    """Push to a registry that takes plain HTTP; returns the digest. `client` may say who pushes."""
    if client is None:
        with httpx.Client(timeout=60, trust_env=False) as anonymous:
            return push(host, repository, tag, image, anonymous)
    base = f"http://{host}/v2/{repository}"
    for digest, blob in image.blobs.items():
        begun = client.post(f"{base}/blobs/uploads/")
        begun.raise_for_status()
        where = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest})
        client.put(where, content=blob).raise_for_status()
    answer = client.put(
        f"{base}/manifests/{tag}", content=image.manifest, headers={"content-type": image.media_type}
    )
    answer.raise_for_status()
    return image.digest


@contextmanager
def docker_registry(folder: Path, settings: str = "") -> Iterator[str]:
    """HOST:PORT of Debian's registry on loopback, which engines take without TLS. `settings` goes on after `http`."""
    binary = shutil.which("docker-registry")
    if binary is None:
        pytest.skip("no docker-registry here: apt-get install docker-registry runs the tests of registries")
    port = free_port()
    file = folder / "config.yml"
    file.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{settings}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "serve", str(file)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "the registry did not start"
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


class Answer(msgspec.Struct, frozen=True):
    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = {}
    announced_bytes: int | None = None
    """The Content-Length that is said, if it is not that of `content`."""


class Asked(msgspec.Struct, frozen=True):
    method: str
    path: str
    authorization: str


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has had enough is no error."""


class ScriptedRegistry:
    """Answers as a test says. `script` may answer a request; None: as an honest registry does."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: Callable[[Asked], Answer | None] = lambda asked: None
        self._manifests: dict[tuple[str, str], Built] = {}
        self._blobs: dict[str, bytes] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = Asked(self.command, self.path, self.headers.get("Authorization", ""))
                registry.asked.append(asked)
                answer = registry.script(asked) or registry.honest(asked)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                length = len(answer.content) if answer.announced_bytes is None else answer.announced_bytes
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.content)
                if length != len(answer.content):
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def hold(self, repository: str, tag: str, image: Built) -> str:
        """Have an image; returns its digest."""
        for name in (tag, image.digest):
            self._manifests[repository, name] = image
        self._blobs |= image.blobs
        return image.digest

    def honest(self, asked: Asked) -> Answer:
        repository, _, rest = asked.path.removeprefix("/v2/").partition("/manifests/")
        image = self._manifests.get((repository, rest))
        if image is not None:
            return Answer(
                content=image.manifest,
                headers={"Content-Type": image.media_type, "Docker-Content-Digest": image.digest},
            )
        blob = self._blobs.get(asked.path.rpartition("/blobs/")[2])
        if blob is not None:
            return Answer(content=blob)
        return refused(404, "MANIFEST_UNKNOWN", "manifest unknown")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def refused(status: int, code: str, message: str, **headers: str) -> Answer:
    content = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, content, {name.replace("_", "-"): value for name, value in headers.items()})
