"""The checks of parts that run: ports, readiness, builds, the router's status."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ops.doctor import parts, parts_probe
from ops.doctor.finding import CannotTell, Level
from ops.doctor.parts import Capacity, Exposure, Node, Port, Ready, Router, Socket
from tests.ops.cli.routers import TOKEN, routing
from tests.ops.doctor.test_asking import answering


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (Port.OURS, Level.OK),
        (Port.FREE, Level.WARN),
        (Port.TAKEN, Level.FAIL),
        (Port.FOREIGN, Level.FAIL),
        (Port.DENIED, Level.WARN),
    ],
)
def test_an_address_is_judged_by_who_listens(found: Port, level: Level) -> None:
    finding = parts.port("127.0.0.1:8101", found, "systemctl start gcompute-set@a")
    assert finding.level is level
    assert (finding.mend == "") is (level is Level.OK)


def test_a_set_that_lets_everybody_in_must_not_be_reached_from_elsewhere() -> None:
    assert parts.exposure(Exposure("10.0.0.5", True)).level is Level.OK
    assert parts.exposure(Exposure("127.0.0.1", False)).level is Level.OK
    assert parts.exposure(Exposure("::1", False)).level is Level.OK
    assert parts.exposure(Exposure("0.0.0.0", False)).level is Level.FAIL
    assert parts.exposure(Exposure("set-a.example", False)).level is Level.FAIL


def test_a_set_must_not_promise_more_than_its_machine_has() -> None:
    assert parts.capacity(Capacity(2, 2, 6000, 8000)).level is Level.OK
    assert parts.capacity(Capacity(4, 2, 6000, 8000)).level is Level.WARN
    found = parts.capacity(Capacity(2, 2, 9000, 8000))
    assert found.level is Level.FAIL
    assert "to 6000 or less" in found.mend


def test_an_answer_of_readyz_is_judged_by_status_and_name() -> None:
    told = {"set": "a", "build": "0.1.0"}
    assert parts.ready(Ready.of(200, told), "a").level is Level.OK
    found = parts.ready(Ready.of(503, {**told, "title": "Full", "detail": "no engine"}), "a")
    assert (found.level, "no engine" in found.text) == (Level.FAIL, True)
    other = parts.ready(Ready.of(200, told), "b")
    assert (other.level, "set a answers at the address of set b" in other.text) == (Level.FAIL, True)


def test_builds_are_compared_with_each_other_and_with_our_own() -> None:
    assert [each.level for each in parts.builds("1", {"a": "1", "b": "1", "c": ""})] == [Level.OK]
    (mixed,) = parts.builds("1", {"a": "1", "b": "2"})
    assert (mixed.level, "a: 1; b: 2" in mixed.text) == (Level.WARN, True)
    (older,) = parts.builds("2", {"a": "1", "b": "1"})
    assert (older.level, "this program is 2" in older.text) == (Level.WARN, True)
    assert list(parts.builds("1", {})) == []


def test_a_sets_machines_are_judged_by_whether_they_take_tasks() -> None:
    assert parts.nodes([Node("n1", True, "1"), Node("n2", True, "1")]).level is Level.OK
    some = parts.nodes([Node("n1", True, "1"), Node("n2", False, "")])
    assert (some.level, "n2 (1 of 2 do)" in some.text) == (Level.WARN, True)
    assert parts.nodes([Node("n1", False, "1")]).level is Level.FAIL
    assert parts.nodes([]).level is Level.FAIL


def test_a_sets_machines_are_read_from_its_metrics() -> None:
    told = (
        b'# TYPE gc_node_up gauge\ngc_node_up{node="n1"} 1.0\ngc_node_up{node="n2"} 0.0\n'
        b'gc_node_info{build="0.1.0+abc",features="1f",node="n1"} 1.0\n'
    )
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + told) as url:
        assert parts_probe.nodes(url, None) == [Node("n1", True, "0.1.0+abc"), Node("n2", False, "")]
    with (
        answering(b"HTTP/1.1 200 OK\r\n\r\ngc_cores 2.0\n") as url,
        pytest.raises(CannotTell, match="nothing of its machines"),
    ):
        parts_probe.nodes(url, None)
    with (
        answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as url,
        pytest.raises(CannotTell, match="GC_OPERATOR_TOKEN"),
    ):
        parts_probe.nodes(url, "t")


def test_a_set_without_its_registrar_starts_no_slot(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")
    assert parts.registrar_socket(parts_probe.registrar(path)).level is Level.FAIL
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert parts_probe.registrar(path) == Socket(path, True)
        assert parts.registrar_socket(parts_probe.registrar(path)).level is Level.OK


def status(**sets: tuple[str, float]) -> Router:
    told = {
        name: {"health": health, "weight": weight, "effective_weight": weight}
        for name, (health, weight) in sets.items()
    }
    return Router({"version": 3, "config_error": None, "missing": [], "sets": told})


def test_a_routers_status_is_judged_by_its_sets() -> None:
    assert [each.level for each in parts.router_status(status(a=("up", 95), b=("up", 5)))] == [Level.OK]
    levels = [each.level for each in parts.router_status(status(a=("up", 100), b=("down", 0)))]
    assert levels == [Level.WARN, Level.OK]
    levels = [each.level for each in parts.router_status(status(a=("down", 100)))]
    assert levels == [Level.FAIL, Level.FAIL]
    broken = Router({**status(a=("up", 100)).document, "config_error": "line 4", "missing": [1]})
    texts = [each.text for each in parts.router_status(broken)]
    assert "version 3 stays in force: line 4" in texts[0]
    assert "workers 1 do not answer" in texts[1]


# Real listeners.


def test_who_listens_is_found_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # It accepts nobody: the kernel does, and no answer comes.
        host, port = server.getsockname()
        assert parts_probe.bindable(host, port) is Port.TAKEN
    assert parts_probe.http_port(host, port, {"x-set": "a"}) is Port.FREE
    assert parts_probe.tls_port(host, port) is Port.FREE
    assert parts_probe.bindable("192.0.2.1", port) is Port.FOREIGN
    assert parts_probe.reachable("0.0.0.0") == "127.0.0.1"
    assert parts_probe.url_of("::", 8101) == "http://[::1]:8101"


def test_a_real_router_tells_its_status(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with routing(tmp_path, "--admin-token-file", str(token)) as operator:
        found = parts_probe.router(operator.admin_url, TOKEN)
        assert set(found.document["sets"]) == {"a", "b"}
        with pytest.raises(CannotTell, match="GC_ADMIN_TOKEN"):
            parts_probe.router(operator.admin_url, "a wrong one")
