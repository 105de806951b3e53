"""A played set, two real routers before it, and each balancer before those, started with the very example."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.ops.front.fake_set import FakeSet
from tests.ops.front.http2 import Client
from tests.router.rig import free_port

ROOT = Path(__file__).resolve().parents[3]
FRONT = ROOT / "ops" / "front"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
HOST = "front.test"
PATIENCE_S = 20.0
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Wait until `condition` holds; fail when it never does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@dataclass
class Pem:
    """A certificate with its key behind it in `both`, and each alone."""

    cert: Path
    key: Path
    both: Path


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Pem:
    folder = tmp_path_factory.mktemp("front")
    cert, key, both = folder / "cert.pem", folder / "key.pem", folder / "front.pem"
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "9", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    return Pem(cert, key, both)


@dataclass
class RouterProcess:
    """`gcompute router` on an address of this machine's loopback."""

    name: str
    host: str
    port: int
    admin_port: int
    folder: Path
    config: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "ops.cli.main", "router", str(self.config), "--name", self.name]
        command += ["--bind", f"{self.host}:{self.port}", "--admin-bind", f"{self.host}:{self.admin_port}"]
        command += ["--trust-front", "127.0.0.1"]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--state-dir", str(self.folder / "state")], cwd=ROOT, stdout=log, stderr=log
            )
        until(lambda: listens(self.host, self.admin_port) and listens(self.host, self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(40) == 0
            self.process = None


@pytest.fixture(scope="module")
def fake_set() -> Iterator[FakeSet]:
    with FakeSet() as fake:
        yield fake


@pytest.fixture(scope="module")
def routers(
    fake_set: FakeSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RouterProcess, RouterProcess]]:
    """r1 and r2: the same ports at two addresses, as the examples have them."""
    folder = tmp_path_factory.mktemp("routers")
    config = folder / "router.yaml"
    config.write_text(
        f'version: 1\nsets: {{a: {{url: "http://127.0.0.1:{fake_set.port}"}}}}\ndefault: {{weights: {{a: 100}}}}\n'
    )
    port, admin_port = free_port(), free_port()
    made = tuple(
        RouterProcess(name, host, port, admin_port, folder, config)
        for name, host in (("r1", "127.0.0.1"), ("r2", "127.0.0.2"))
    )
    try:
        for each in made:
            each.start()
        yield made[0], made[1]
    finally:
        for each in made:
            each.stop()


@dataclass
class Front:
    """A balancer that runs the example, and curl as its client."""

    name: str
    port: int
    pem: Pem
    folder: Path
    routers: tuple[RouterProcess, RouterProcess]
    process: subprocess.Popen[bytes] = field(repr=False)

    def url(self, path: str) -> str:
        return f"https://{HOST}:{self.port}{path}"

    def curl(self, path: str, *options: str, http: str = "--http2") -> list[str]:
        """The command."""
        address = ("--cacert", str(self.pem.cert), "--resolve", f"{HOST}:{self.port}:127.0.0.1")
        # No other curl's configuration, and an end in any case.
        return [
            program("curl"), "-q", "-sS", "--max-time", "50", http, *address, *options, self.url(path),
        ]  # fmt: skip

    def client(self) -> Client:
        """A client of HTTP/2."""
        return Client(self.port, self.pem.cert, HOST)

    def ask(self, path: str, *options: str, http: str = "--http2", body: bytes = b"") -> Answer:
        """One request; what curl printed. Raises nothing for what the answer says."""
        command = self.curl(path, "-D", "-", "-w", "\n%{http_version} %{http_code} %{time_total}", *options,
                            http=http)  # fmt: skip
        done = subprocess.run(command, input=body, capture_output=True, timeout=60, check=False)
        text = done.stdout
        text, _, last = text.rpartition(b"\n")
        version, status, seconds = last.split()
        # With informational answers there are several heads.
        head = b""
        while text.startswith(b"HTTP/"):
            one, _, text = text.partition(b"\r\n\r\n")
            head += one + b"\r\n"
        return Answer(
            done.returncode, version.decode(), int(status), head.decode("latin-1"), text, float(seconds),
            done.stderr.decode(),
        )  # fmt: skip

    def spooled(self) -> list[Path]:
        """nginx's files that hold bodies."""
        return [path for each in TEMPORARY for path in (self.folder / each).rglob("*") if path.is_file()]

    def memory_mib(self) -> float:
        """The most that one of its processes ever held."""
        most = 0
        pids = [self.process.pid, *map(int, children(self.process.pid))]
        for pid in pids:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            most = max(most, int(found[1]) if found else 0)
        return most / 1024

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@dataclass
class Answer:
    """`code` is curl's exit status."""

    code: int
    version: str
    status: int
    head: str
    body: bytes
    seconds: float
    errors: str

    def header(self, name: str) -> str | None:
        found = re.search(rf"(?im)^{re.escape(name)}: *([^\r\n]*)", self.head)
        return found[1] if found else None


def example(
    name: str, pem: Pem, port: int, routers: tuple[RouterProcess, RouterProcess], folder: Path
) -> str:
    """The example's text with other ports and paths; nothing else differs. Where nginx keeps bodies in files is
    compiled into it: that is put into the folder, too."""
    file, changes = {
        "haproxy": (
            "haproxy.cfg",
            {"bind :443 ": f"bind 127.0.0.1:{port} ", "/etc/haproxy/tls/front.pem": str(pem.both)},
        ),
        "nginx": (
            "nginx.conf",
            {
                "        listen 443 ": f"        listen 127.0.0.1:{port} ",
                "/etc/nginx/tls/front.pem": str(pem.cert),
                "/etc/nginx/tls/front.key": str(pem.key),
                "/run/nginx.pid": str(folder / "nginx.pid"),
                "http {\n": "http {\n"
                + "".join(f"{each}_temp_path {folder}/{each};\n" for each in TEMPORARY),
            },
        ),
    }[name]
    text = (FRONT / file).read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    for old_port, new_port in (("8080", routers[0].port), ("8081", routers[0].admin_port)):
        text = re.sub(rf"\b{old_port}\b", str(new_port), text)
    return text


@contextmanager
def started(
    name: str, text: str, port: int, pem: Pem, routers: tuple[RouterProcess, RouterProcess], folder: Path
) -> Iterator[Front]:
    """A balancer with this configuration."""
    binary = program(name)
    # nginx's workers give up root, and must still reach their folder.
    for each in (folder, *folder.parents[:2]):
        each.chmod(each.stat().st_mode | 0o055)
    config = folder / "front.conf"
    config.write_text(text)
    command = [binary, "-f", str(config), "-db"]
    if name == "nginx":
        command = [binary, "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PATH": PATH}
        )
    try:
        until(lambda: listens("127.0.0.1", port))
        made = Front(name, port, pem, folder, routers, process)
        # HAProxy knows no router as alive before its first checks.
        until(lambda: made.ask("/v1/tasks/a-0").status == 200)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def before_3_2(name: str) -> bool:
    """Whether it is an HAProxy to which the example gives no HTTP/2."""
    if name != "haproxy":
        return False
    said = subprocess.run([program(name), "-v"], capture_output=True, text=True, timeout=10, check=True)
    found = re.search(r"version (\d+)\.(\d+)", said.stdout)
    assert found is not None, said.stdout
    return (int(found[1]), int(found[2])) < (3, 2)


@pytest.fixture(scope="module", params=["haproxy", "nginx"])
def front(
    request: pytest.FixtureRequest,
    pem: Pem,
    routers: tuple[RouterProcess, RouterProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    """The example, with HTTP/2 in any case: an old HAProxy is shown it as if it were a new one."""
    name = str(request.param)
    folder = tmp_path_factory.mktemp(name)
    port = free_port()
    text = example(name, pem, port, routers, folder).replace("version_atleast(3.2)", "version_atleast(2.4)")
    with started(name, text, port, pem, routers, folder) as made:
        yield made


@pytest.fixture(scope="module")
def plain_haproxy(
    pem: Pem, routers: tuple[RouterProcess, RouterProcess], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """The example as this machine's HAProxy reads it."""
    folder = tmp_path_factory.mktemp("haproxy")
    port = free_port()
    text = example("haproxy", pem, port, routers, folder)
    with started("haproxy", text, port, pem, routers, folder) as made:
        yield made
