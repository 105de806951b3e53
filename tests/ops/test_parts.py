"""What the local stack is started with."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ops.local import stack
from ops.local.parts import Part, Ports, parts_of
from ops.setup.errors import StackFailed


def test_ports_without_variables_are_the_documented_ones() -> None:
    assert Ports.of({}) == Ports(router=8080, admin=8081, set_a=8101, set_b=8102)
    assert Ports.of({"GC_ROUTER_PORT": ""}) == Ports()


def test_each_port_has_its_variable() -> None:
    variables = {"GC_ROUTER_PORT": "1", "GC_ADMIN_PORT": "2", "GC_SET_A_PORT": "3", "GC_SET_B_PORT": "65535"}
    assert Ports.of(variables) == Ports(1, 2, 3, 65535)


@pytest.mark.parametrize("value", ["0", "65536", "http", "-1", "80 80", "٣"])
def test_what_is_no_port_is_named(value: str) -> None:
    with pytest.raises(StackFailed, match="GC_SET_B_PORT="):
        Ports.of({"GC_SET_B_PORT": value})


def test_two_parts_on_one_port_are_both_named() -> None:
    with pytest.raises(StackFailed, match="GC_ADMIN_PORT and GC_ROUTER_PORT are both 9000"):
        Ports.of({"GC_ROUTER_PORT": "9000", "GC_ADMIN_PORT": "9000"})


def test_the_router_reads_the_operators_own_file_and_is_told_other_addresses_beside_it() -> None:
    root = Path("/srv/gc")
    *_, usual = parts_of(Ports(), root)
    assert "/srv/gc/ops/local/router.yaml" in usual.command
    assert "--set-url" not in usual.command
    *_, other = parts_of(Ports(set_b=9102), root)
    assert "/srv/gc/ops/local/router.yaml" in other.command
    assert other.command[-2:] == ("--set-url", "b=http://127.0.0.1:9102")


def test_parts_of_two_checkouts_are_told_apart() -> None:
    ours, theirs = parts_of(Ports(), Path("/srv/gc")), parts_of(Ports(), Path("/srv/gc2"))
    marks = {part.mark for part in (*ours, *theirs)}
    assert len(marks) == 6
    assert not any(part.mark in " ".join(other.command) for part in ours for other in theirs)


def test_a_port_that_is_taken_is_told_with_its_variable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        part = Part(tmp_path, "router", ("x", "router", "y"), ((port, "GC_ROUTER_PORT"),), "")
        with pytest.raises(StackFailed, match=rf"127\.0\.0\.1:{port}.*(?s:.*)GC_ROUTER_PORT=NUMBER make up"):
            stack._check_ports(part)
