"""The balancers' own checkers read the examples, and the examples' times fit those of the router."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from router.wire.limits import Limits
from router.wire.silence import PROBE_AFTER_S, PROBE_EVERY_S, PROBES
from tests.ops.front.conftest import FRONT, Pem, RouterProcess, example, program

ROUTERS = (
    RouterProcess("r1", "127.0.0.1", 8080, 8081, Path(), Path()),
    RouterProcess("r2", "127.0.0.2", 8080, 8081, Path(), Path()),
)


def test_haproxy_takes_its_example(pem: Pem, tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(example("haproxy", pem, 8443, ROUTERS, tmp_path))
    done = subprocess.run(
        [program("haproxy"), "-c", "-f", str(config)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr


def test_nginx_takes_its_example(pem: Pem, tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    config.write_text(example("nginx", pem, 8443, ROUTERS, tmp_path))
    done = subprocess.run(
        [program("nginx"), "-t", "-p", str(tmp_path), "-c", str(config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr
    assert "[warn]" not in done.stderr


# What the balancer waits for, and what the router waits for at the same point: the router's time ends first, so that
# clients get its answer and not the balancer's.
LIMITS = Limits()
LONGEST_SILENCE_S = max(LIMITS.task_first_byte_s, LIMITS.answer_idle_s)


@pytest.mark.parametrize(
    ("file", "name", "longer_than_s"),
    [
        ("haproxy.cfg", "timeout server", LONGEST_SILENCE_S),
        ("haproxy.cfg", "timeout client", LONGEST_SILENCE_S),
        ("nginx.conf", "proxy_read_timeout", LONGEST_SILENCE_S),
        ("nginx.conf", "proxy_send_timeout", LONGEST_SILENCE_S),
        ("nginx.conf", "client_body_timeout", LIMITS.body_idle_s),
        ("nginx.conf", "send_timeout", LIMITS.write_stall_s),
    ],
)
def test_the_router_loses_patience_first(file: str, name: str, longer_than_s: float) -> None:
    assert seconds(file, name) > longer_than_s


def test_haproxy_asks_a_silent_router_s_machine_as_a_router_asks_a_set_s() -> None:
    assert seconds("haproxy.cfg", "srvtcpka-idle") == PROBE_AFTER_S
    assert seconds("haproxy.cfg", "srvtcpka-intvl") == PROBE_EVERY_S
    found = re.search(r"(?m)^ *srvtcpka-cnt +(\d+)$", (FRONT / "haproxy.cfg").read_text())
    assert found is not None
    assert int(found[1]) == PROBES


def test_kept_connections_are_closed_by_the_balancer_before_the_router_does() -> None:
    """Who closes first sends nothing more on them."""
    text = (FRONT / "nginx.conf").read_text()
    upstream = re.search(r"upstream routers \{.*?\}", text, re.DOTALL)
    assert upstream is not None
    kept = re.search(r"keepalive_timeout +(\d+)s;", upstream[0])
    assert kept is not None
    assert int(kept[1]) < LIMITS.keep_alive_s


def seconds(file: str, name: str) -> float:
    found = re.search(rf"(?m)^ *{name} +(\d+)(s|m);?", (FRONT / file).read_text())
    assert found is not None, name
    return int(found[1]) * {"s": 1, "m": 60}[found[2]]
