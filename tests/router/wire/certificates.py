"""Certificates made by openssl, and a data plane that serves with one."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from router.wire.certificate import Certificate, TlsFiles
from tests.router.rig import Client, Rig, answering, running

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


def make(folder: Path, name: str) -> TlsFiles:
    """A certificate for `name`, signed by itself."""
    folder.mkdir(exist_ok=True)
    files = TlsFiles(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", files.key, "-out", files.cert],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return files


def make_dated(folder: Path, name: str, begins: str, ends: str) -> TlsFiles:
    """As `make`, with these dates (YYYYMMDDHHMMSSZ): only `openssl ca` takes them."""
    files = make(folder, name)
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca = one\n[one]\ndatabase = db\nnew_certs_dir = .\nrand_serial = yes\ndefault_md = sha256\n"
        "policy = any\n[any]\ncommonName = supplied\n"
    )
    (folder / "db").touch()
    for command in (
        ["req", "-new", "-key", "key.pem", "-subj", f"/CN={name}", "-out", "request.pem"],
        ["ca", "-config", "ca.cnf", "-batch", "-selfsign", "-keyfile", "key.pem", "-in", "request.pem",
         "-startdate", begins, "-enddate", ends, "-notext", "-out", "cert.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True, timeout=30, cwd=folder)
    return files


async def connect(
    rig: Rig, trusted: TlsFiles, name: str = "one.test", tls: ssl.TLSVersion | None = None
) -> Client:
    context = ssl.create_default_context(cafile=str(trusted.cert))
    context.set_alpn_protocols(["h2", "http/1.1"])
    if tls is not None:
        context.maximum_version = tls
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, ssl=context, server_hostname=name)
    rig.stack.callback(writer.close)
    return Client(reader, writer)


@asynccontextmanager
async def serving(files: TlsFiles, **plays: object) -> AsyncIterator[Rig]:
    async with running(plays or {"a": answering()}) as rig:  # type: ignore[arg-type]
        rig.plane.certificate = Certificate(files)
        yield rig
