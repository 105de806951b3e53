"""The checks of a Nomad cluster: its door, its servers, its clients; and how they are asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops.doctor import cluster, policy
from ops.doctor.cluster import VOLUMES, Client, Door, Servers
from ops.doctor.cluster_probe import Cluster
from ops.doctor.finding import CannotTell, Finding, Level
from scheduler.launchers.nomad.settings import RegistrarSettings
from tests.ops.doctor.test_policy import rules

SECRET = "5c9a2f1e-0000-4000-8000-aaaaaaaaaaaa"


def levels(found: Iterator[Finding]) -> list[Level]:
    return [each.level for each in found]


def test_a_cluster_without_acls_or_tls_is_open() -> None:
    assert levels(cluster.door(Door("nomad.example", True, True, True))) == [Level.OK]
    assert levels(cluster.door(Door("nomad.example", False, True, False))) == [Level.FAIL, Level.FAIL]
    assert levels(cluster.door(Door("127.0.0.1", False, True, True))) == [Level.WARN]
    no_token, _ = cluster.door(Door("nomad.example", True, False, True))
    assert "token_file" in no_token.mend


@pytest.mark.parametrize(
    ("leader", "count", "level"),
    [("x:4647", 3, Level.OK), ("", 3, Level.FAIL), ("x", 1, Level.WARN), ("x", 2, Level.WARN)],
)
def test_servers_are_an_odd_number_with_a_leader(leader: str, count: int, level: Level) -> None:
    assert cluster.servers(Servers(leader, ["x"] * count)).level is level


def client(name: str = "n1", **changed: Any) -> Client:
    """A client as `client.hcl` makes it."""
    attributes = {
        "cpu.numcores": "2",
        "cpu.totalcompute": "2000",
        "driver.docker.pids.limit": "4096",
        "nomad.version": "2.0.6",
        "unique.storage.bytesfree": "90000000000",
        **changed.pop("attributes", {}),
    }
    node = {
        "Name": name,
        "Status": "ready",
        "SchedulingEligibility": "eligible",
        "HostVolumes": {name: {} for name in VOLUMES},
        "Drivers": {"docker": {"Healthy": True}},
        "Attributes": attributes,
        **changed,
    }
    return Client(node)


def test_clients_that_are_laid_out_are_right() -> None:
    (found,) = cluster.clients([client("n1"), client("n2")], "default")
    assert (found.level, found.text.startswith("2 of 2")) == (Level.OK, True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"Status": "down"}, "the status is down"),
        ({"Drivers": {}}, "docker driver is not healthy"),
        ({"HostVolumes": {"gc-bin": {}}}, "host volume of the platform is missing"),
        ({"attributes": {"driver.docker.privileged.enabled": "true"}}, "allows privileged"),
        ({"attributes": {"driver.docker.volumes.enabled": "true"}}, "mount any folder"),
        ({"attributes": {"cpu.totalcompute": "5200"}}, "cpu_total_compute"),
    ],
)
def test_each_fault_of_a_client_is_told_with_its_name(changed: dict[str, Any], words: str) -> None:
    first, *_ = cluster.clients([client("n1", **changed), client("n2")], "default")
    assert first.level is Level.FAIL
    assert first.text.startswith("n1: ")
    assert words in first.text
    assert first.mend


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SchedulingEligibility": "ineligible"}, "not eligible"),
        ({"attributes": {"unique.storage.bytesfree": "1000"}}, "less than 2 GiB"),
        ({"attributes": {"driver.docker.pids.limit": None}}, "pids_limit"),
        ({"attributes": {"nomad.version": "1.9.0"}}, "clients run Nomad 1.9.0, 2.0.6"),
    ],
)
def test_each_doubt_about_a_client_is_told(changed: dict[str, Any], words: str) -> None:
    found = list(cluster.clients([client("n1", **changed), client("n2")], "default"))
    assert found[0].level is Level.WARN
    assert words in found[0].text


def test_a_runtime_that_a_node_lacks_is_told() -> None:
    has = client("n1", attributes={"driver.docker.runtimes": "gcompute-runc,runc"})
    lacks = client("n2", attributes={"driver.docker.runtimes": "runc"})
    assert levels(cluster.clients([has], "default", "gcompute-runc")) == [Level.OK]
    (found,) = cluster.clients([has, lacks], "default", "gcompute-runc")
    assert (found.level, found.text.startswith("n2: the engine has no runtime")) == (Level.FAIL, True)


def test_many_nodes_are_not_all_named_and_none_is_told() -> None:
    nodes = [client(f"n{number}", Status="down") for number in range(9)]
    first, *_ = cluster.clients(nodes, "default")
    assert "n4 and 4 more" in first.text
    (none,) = cluster.clients([], "gc")
    assert (none.level, "node pool gc" in none.text) == (Level.FAIL, True)


# How it is asked.


@contextmanager
def a_cluster(paths: dict[str, Any]) -> Iterator[str]:
    """Plays a Nomad agent: a document for each path, or a status and words. Another token than ours is denied."""

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = paths.get(self.path.partition("?")[0], (404, "not found"))
            if self.headers["X-Nomad-Token"] != SECRET:
                found = (403, "Permission denied")
            status, body = found if isinstance(found, tuple) else (200, json.dumps(found))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def seen(address: str, tmp_path: Path, secret: str = SECRET) -> Cluster:
    token = tmp_path / "token"
    token.write_text(secret)
    return Cluster(
        RegistrarSettings(set_name="a", socket="s", address=address, namespace="gc-a", token_file=str(token))
    )


def test_a_cluster_is_asked_with_the_registrars_token(tmp_path: Path) -> None:
    paths = {
        "/v1/acl/token/self": {"Type": "client", "Policies": ["p"], "Roles": [{"ID": "r1"}]},
        "/v1/acl/role/r1": {"Policies": [{"Name": "q"}]},
        "/v1/acl/policy/p": {"Name": "p", "RulesJSON": rules()},
        "/v1/acl/policy/q": {"Name": "q", "RulesJSON": rules(Namespaces=[])},
        "/v1/status/leader": "127.0.0.1:4647",
        "/v1/status/peers": ["127.0.0.1:4647"],
        "/v1/nodes": [{"ID": "1"}],
        "/v1/node/1": dict(client().node),
    }
    with a_cluster(paths) as address:
        found = seen(address, tmp_path)
        assert found.door() == Door("127.0.0.1", False, True, True)
        assert found.servers() == Servers("127.0.0.1:4647", ["127.0.0.1:4647"])
        assert [each.name for each in found.clients()] == ["n1"]
        assert sorted(found.token().policies) == ["p", "q"]
        assert levels(policy.token(found.token(), "gc-a")) == [Level.OK]


def test_a_cluster_that_denies_or_has_no_acls_is_told(tmp_path: Path) -> None:
    with a_cluster({"/v1/acl/token/self": (400, "ACL support disabled")}) as address:
        assert not seen(address, tmp_path).door().acl
        with pytest.raises(CannotTell, match="ACLs are off"):
            seen(address, tmp_path).token()
        stranger = seen(address, tmp_path, "another")
        with pytest.raises(CannotTell, match="does not know the token"):
            stranger.token()
        with pytest.raises(CannotTell, match="denies it to this token"):
            stranger.clients()
        with pytest.raises(CannotTell, match="answers 404 to /v1/nodes"):
            seen(address, tmp_path).clients()


def test_a_token_that_cannot_be_read_is_told_and_never_shown(tmp_path: Path) -> None:
    settings = RegistrarSettings(set_name="a", socket="s", token_file=str(tmp_path / "none"))
    with pytest.raises(CannotTell, match="token_file"):
        Cluster(settings)
