"""Hosts as network namespaces of this machine, joined by a switch whose wires can be cut, delayed and made lossy.

Needs root, `ip`, `nsenter` and /dev/net/tun. The addresses exist in the namespaces alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from tests.cluster.switch import CUT, DEVICE, FAIR, NAMESPACES, Order, Weather, enter
from tests.conftest import ROOT

PATIENCE_S = 60.0
NETWORK = "10.77.0"
"""The first numbers of all addresses."""
T = TypeVar("T")


def why_not() -> str:
    """The reason why this machine cannot have such hosts; empty if it can."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter"))):
        return "hosts in network namespaces need root and the programs ip and nsenter"
    if not Path("/dev/net/tun").exists():
        return "the wires between hosts need /dev/net/tun"
    name = f"gcprobe{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode:
        return f"no network namespaces here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Named hosts; each has one address. Use as a context manager.

    `numbers`: more hosts, with the last number of their addresses.
    """

    def __init__(self, hosts: Iterable[str], seed: int = 0, numbers: Mapping[str, int] | None = None) -> None:
        self._seed = seed
        tag = uuid.uuid4().hex[:6]
        given = dict(numbers or {})
        free = (number for number in range(1, 255) if number not in given.values())
        given = {**{host: next(free) for host in hosts}, **given}
        self.hosts = list(given)
        self._namespaces = {host: f"gc{tag}{host}" for host in self.hosts}
        self._addresses = {host: f"{NETWORK}.{number}" for host, number in given.items()}
        self._switch: subprocess.Popen[str] | None = None

    def address(self, host: str) -> str:
        return self._addresses[host]

    def __enter__(self) -> Network:
        try:
            for namespace in self._namespaces.values():
                _run("ip", "netns", "add", namespace)
                _run("ip", "-n", namespace, "link", "set", "lo", "up")
            places = [f"{namespace}={self._addresses[host]}" for host, namespace in self._namespaces.items()]
            self._switch = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.switch", str(self._seed), *places],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._await_switch()
            for host, namespace in self._namespaces.items():
                device = ("-n", namespace, "link", "set", DEVICE, "up")
                _run("ip", "-n", namespace, "addr", "add", f"{self._addresses[host]}/24", "dev", DEVICE)
                _run("ip", *device)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._switch is not None:
            assert self._switch.stdin is not None
            assert self._switch.stdout is not None
            self._switch.stdin.close()
            try:
                self._switch.wait(PATIENCE_S)
            finally:
                self._switch.kill()
                self._switch.wait()
                self._switch.stdout.close()
        for namespace in self._namespaces.values():
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)

    def route_all(self, host: str) -> None:
        """Give a host a default route, for programs that look for one; the switch drops what takes it."""
        gateway = next(address for other, address in self._addresses.items() if other != host)
        _run("ip", "-n", self._namespaces[host], "route", "add", "default", "via", gateway)

    # -- the wires

    def change(self, source: str, target: str, weather: Weather) -> None:
        """The weather from one host to another; in force when this returns."""
        assert self._switch is not None
        assert self._switch.stdin is not None
        order = Order(self._addresses[source], self._addresses[target], weather)
        self._switch.stdin.write(order.line() + "\n")
        self._switch.stdin.flush()
        self._await_switch()

    def change_all(self, host: str, weather: Weather) -> None:
        """The weather between a host and all others, both ways."""
        for other in self.hosts:
            if other != host:
                self.change(host, other, weather)
                self.change(other, host, weather)

    def cut(self, host: str) -> None:
        """Nothing reaches or leaves the host; nobody is told."""
        self.change_all(host, CUT)

    def heal(self, host: str) -> None:
        self.change_all(host, FAIR)

    def _await_switch(self) -> None:
        assert self._switch is not None
        assert self._switch.stdout is not None
        if self._switch.stdout.readline() != "done\n":
            raise RuntimeError("the switch between the hosts ended")

    # -- what runs on a host

    def command(self, host: str, *words: str) -> list[str]:
        """The command that runs a program on a host; the process is the program's own."""
        return ["nsenter", f"--net={NAMESPACES / self._namespaces[host]}", *words]

    def on(self, host: str, act: Callable[[], T]) -> T:
        """Call `act` on a host: the sockets that it opens are there. Raises what `act` raises."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                enter(self._namespaces[host])
                results.append(act())
            except BaseException as error:
                errors.append(error)

        # A thread of its own, because only a thread can be on another host.
        thread = threading.Thread(target=work, name=f"on {host}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]
