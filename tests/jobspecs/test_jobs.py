"""The jobs of the platform: Nomad takes their files, and a task runs through executor, set and router as jobs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import httpx
import pytest

from ops.certificates.authority import Authority
from ops.deploy.image import build_image
from ops.deploy.package import build_package
from ops.doctor.policy import VOLUMES
from ops.nomad.cluster import CLIENTS, PLATFORM, REGISTRAR_USER, SET_USER, Cluster
from ops.setup import processes
from sets.config import SetConfig
from sets.executor_config import ExecutorConfig
from sets.server import CLOSE_TIMEOUT_S
from tests.conftest import ROOT
from tests.ports import free_port
from tests.scheduler.launchers.nomad.agents import needs_nomad, start_cluster
from tests.scheduler.registries import docker_registry

pytestmark = pytest.mark.timeout(1800)
PATIENCE_S = 600.0
JOBS = ROOT / "jobspecs"


def job(name: str, variables: dict[str, str]) -> list[str]:
    """The arguments of `nomad job …` for a job of the platform."""
    return [*(f"-var={key}={value}" for key, value in variables.items()), str(JOBS / f"{name}.nomad.hcl")]


def seconds(name: str) -> list[float]:
    """Each `kill_timeout` of a job."""
    found = re.findall(r'kill_timeout *= "([0-9]+)s"', (JOBS / f"{name}.nomad.hcl").read_text())
    return [float(each) for each in found]


def test_the_parts_have_time_to_drain_and_clients_allow_it() -> None:
    set_s = SetConfig(name="a", state_dir="x").drain_timeout_s + CLOSE_TIMEOUT_S
    executor_s = ExecutorConfig(node="n", state_dir="x", certificates="x", sets={}).drain_timeout_s
    assert min(seconds("set")) > set_s
    assert min(seconds("executor")) > executor_s
    allowed = re.search(r'max_kill_timeout = "([0-9]+)m"', (ROOT / "ops/nomad/client.hcl").read_text())
    assert allowed is not None
    assert 60 * int(allowed[1]) >= max(seconds("set") + seconds("executor") + seconds("router"))


def test_a_registrars_token_mounts_the_folders_that_slots_need_and_no_others() -> None:
    """Beside these a machine may have the folders of sets and of other registrars."""
    mounted = {
        source
        for name in ("slot", "pull")
        for source in re.findall(r'source += "([^"]+)"', (JOBS / f"{name}.nomad.hcl").read_text())
    }
    policy = (ROOT / "ops/nomad/policies/registrar.hcl").read_text()
    granted = set(re.findall(r'host_volume "([^"]+)" {\n  policy = "read"\n}', policy))
    assert policy.count("host_volume") == len(granted)
    assert granted == mounted == VOLUMES


@pytest.fixture(scope="module")
def cluster(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    needs_nomad()
    with start_cluster(tmp_path_factory.mktemp("cluster"), docker_host) as cluster:
        yield cluster


def variables(cluster: Cluster, folder: Path) -> dict[str, dict[str, str]]:
    """Variables with which the jobs run on the test's cluster, by job. Clients share the machine's addresses."""
    (folder / "set.yaml").write_text("drain_notice_s: 0\n")
    executors = ", ".join(f'{name} = "{cluster.address(name)}:8201"' for name in CLIENTS)
    return {
        "executor": {"shares": "{a: {cores: 2, memory_mib: 2048, max_slots: 4}}"},
        "set": {
            "image": "general-compute:1",
            "set_name": "a",
            "executors": f"{{{executors}}}",
            "settings": str(folder / "set.yaml"),
            "nomad_url": cluster.url("s2"),
            "node_folder": str(cluster.node_folder("c1")),
        },
        "router": {"image": "general-compute:1", "routers": "1", "canaries": "0", "admin_port": "0"},
    }


@pytest.mark.docker
@pytest.mark.parametrize("name", ["executor", "set", "router"])
def test_nomad_takes_the_file(cluster: Cluster, tmp_path: Path, name: str) -> None:
    given = variables(cluster, tmp_path)[name]
    assert "successful" in cluster.command("job", "validate", *job(name, given))
    if name == "executor":
        package = {"package": "https://files.example/p.tar.gz", "checksum": f"sha256:{0:064x}"}
        assert "successful" in cluster.command("job", "validate", *job(name, {**given, **package}))


@contextmanager
def served(file: Path) -> Iterator[str]:
    """Serve the folder of a file on loopback; gives the file's address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(file.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{file.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def owned(folder: Path, user: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, SET_USER)


def hand_out(cluster: Cluster, folder: Path) -> None:
    """Put certificates and the registrar's token where platform.hcl says."""
    authority = Authority(folder / "authority")
    authority.make()
    authority.issue_to_set("a", cluster.platform / "config/link", 10)
    for name in CLIENTS:
        authority.issue_to_executor(name, folder / "link" / name, 10)
    shutil.copy(cluster.registrar_token_file, cluster.platform / "registrar/token")
    shutil.copy(cluster.ca_file, cluster.platform / "registrar/ca.pem")
    owned(cluster.platform / "config", SET_USER)
    owned(cluster.platform / "registrar", REGISTRAR_USER)


def running(cluster: Cluster) -> list[str]:
    """The jobs that have something to run, in all namespaces."""
    listed = cluster.ask("GET", "/v1/jobs?namespace=*").json()
    return [each["ID"] for each in listed if each["Status"] != "dead"]


def until(condition: Callable[[], object], said: Callable[[], str]) -> None:
    def holds() -> bool:
        try:
            return bool(condition())
        except httpx.HTTPError:
            return False

    assert processes.wait_until(holds, PATIENCE_S), said()


@pytest.mark.docker
@pytest.mark.skipif(not os.environ.get("GC_TEST_ALL"), reason="builds package and image: make test-all")
def test_a_task_runs_through_the_jobs(
    cluster: Cluster, engine: docker.DockerClient, docker_host: str, tmp_path: Path
) -> None:
    image, package = build_image(docker_host), build_package()
    hand_out(cluster, tmp_path)
    given = variables(cluster, tmp_path)
    port = free_port()
    given["router"] |= {"image": image, "port": str(port)}
    given["set"] |= {"image": image}
    checksum = "sha256:" + hashlib.sha256(package.read_bytes()).hexdigest()
    given["executor"] |= {
        "checksum": checksum,
        "certificates": str(tmp_path / "link"),
        "state_dir": str(tmp_path / "executors"),
    }
    routers = tmp_path / "router.yaml"
    routers.write_text(
        f'version: 1\ndiscovery: {{nomad: "{cluster.url("s3")}", namespace: {PLATFORM}, '
        "token_file: /secrets/nomad_token, ca_file: /local/ca.pem}\n"
        "sets:\n  a: {service: gc-set-a, state: ready}\ndefault:\n  weights: {a: 100}\n"
    )

    def services(name: str) -> list[dict[str, object]]:
        answer = cluster.ask("GET", f"/v1/service/{name}?namespace={PLATFORM}")
        listed: list[dict[str, object]] = answer.json() if answer.is_success else []
        return listed

    def told() -> str:
        return "\n".join(
            cluster.ask("GET", f"/v1/job/{each}/allocations?namespace={PLATFORM}").text[-4000:]
            for each in ("gc-executor", "gc-set-a", "gc-router")
        )

    with docker_registry(tmp_path) as registry, served(package) as address:
        # A small image: the set reads all of it from the registry.
        name = f"{registry}/ncat"
        engine.images.get("ncat:1").tag(name, "1")
        engine.images.push(name, "1")
        registries = f'registries: [{{name: "{registry}", url: "http://{registry}"}}]\n'
        (tmp_path / "set.yaml").write_text(f"drain_notice_s: 0\n{registries}")
        put = ["var", "put", "-force", "-out=none", f"-namespace={PLATFORM}", "nomad/jobs/gc-router"]
        cluster.command(*put, f"router=@{routers}", f"ca=@{cluster.ca_file}")
        given["set"] |= {"registries": f'["{registry}"]'}
        given["executor"] |= {"package": address}
        try:
            for each in ("executor", "set", "router"):
                cluster.command("job", "run", "-detach", *job(each, given[each]))
            until(lambda: len(services("gc-executor")) == len(CLIENTS), told)
            until(lambda: services("gc-set-a") and services("gc-router"), told)
            (router,) = services("gc-router")
            url = f"http://{router['Address']}:{router['Port']}/v1/run/{name}:1"

            def answer() -> httpx.Response:
                query = {"queue_timeout_s": 200}
                return httpx.post(url, params=query, content=b"all jobs", timeout=PATIENCE_S, trust_env=False)

            until(lambda: answer().status_code == 200, lambda: answer().text + told())
            assert answer().content == b"all jobs"
            jobs = cluster.ask("GET", "/v1/jobs?namespace=gc-a").json()
            assert [each["Name"] for each in jobs] == [f"set a: default / {name}:1"]
        finally:
            for each in ("gc-router", "gc-set-a", "gc-executor"):
                cluster.command("job", "stop", "-detach", "-purge", f"-namespace={PLATFORM}", each)
            until(lambda: not running(cluster), told)
            engine.images.remove(f"{name}:1")
