"""Makes the faults of a history happen to the parts of a cluster, and to what Nomad has of it."""

from __future__ import annotations

import random
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from docker.errors import APIError

from tests.cluster.clock import boot_s
from tests.cluster.cluster import Cluster
from tests.cluster.faults import ENGINE, REGISTRAR, ROUTER, SET, Fault, Kind
from tests.cluster.nomad import NomadCluster, Operator
from tests.cluster.parts import Part, restart
from tests.cluster.switch import CUT, FAIR, Weather

BAD_WIRE = Weather(delay_s=0.01, jitter_s=0.05, loss=0.05)


class Trouble:
    """Makes faults happen to a cluster, and heals them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._network = cluster.network
        self._paused: dict[str, list[str]] = {}
        self.frozen: list[tuple[float, float]] = []
        """Times in which frozen programs could not kill what they run."""
        self._frozen_since: dict[str, float] = {}
        self.unheard: list[tuple[float, float]] = []
        """Times in which no router listened: a client may be left without an answer."""
        self._unheard_since = 0.0

    def begin(self, fault: Fault) -> None:
        target = fault.target
        match fault.kind:
            case Kind.CUT:
                self._network.cut(target)
            case Kind.CUT_OUT:
                self._one_way(target, CUT, outwards=True)
            case Kind.CUT_IN:
                self._one_way(target, CUT, outwards=False)
            case Kind.BAD_WIRE:
                self._network.change_all(target, BAD_WIRE)
            case Kind.FREEZE_PROGRAM:
                self._freeze(target)
            case Kind.FREEZE_NODE:
                self._freeze(target)
                self._paused[target] = [each for each in self._cluster.slots(target) if self._pause(each)]
            case Kind.KILL if target == ENGINE:
                engine = self._cluster.own_engine
                assert engine is not None
                restart(engine)
            case Kind.KILL:
                self._note_unheard(target)
                self._part(target).kill()
            case Kind.RESTART:
                self._note_unheard(target)
                self._part(target).ask_to_stop()
            case Kind.KILL_SLOT:
                if slots := self._cluster.slots(target):
                    # It may be gone by now.
                    with suppress(APIError):
                        self._cluster.engine.api.kill(random.Random(fault.dice).choice(slots))

    def end(self, fault: Fault) -> None:
        target = fault.target
        match fault.kind:
            case Kind.CUT | Kind.BAD_WIRE:
                self._network.heal(target)
            case Kind.CUT_OUT | Kind.CUT_IN:
                self._one_way(target, FAIR, outwards=fault.kind is Kind.CUT_OUT)
            case Kind.FREEZE_PROGRAM | Kind.FREEZE_NODE:
                self._part(target).signal(signal.SIGCONT)
                for each in self._paused.pop(target, ()):
                    with suppress(APIError):
                        self._cluster.engine.api.unpause(each)
                self.frozen.append((self._frozen_since.pop(target), boot_s() + self._cluster.lease_s))
            case Kind.KILL | Kind.RESTART if target != ENGINE:
                part = self._part(target)
                part.stop()
                part.start()
                if target == ROUTER:
                    part.until_ready()
                    self.unheard.append((self._unheard_since, boot_s()))

    def finish(self) -> None:
        """Wait until all that was hit is healed; each fault has ended before."""

    def _part(self, target: str) -> Part:
        cluster = self._cluster
        return {SET: cluster.set, ROUTER: cluster.router, **cluster.executors}[target]

    def _one_way(self, target: str, weather: Weather, *, outwards: bool) -> None:
        for other in self._network.hosts:
            if other != target:
                ends = (target, other) if outwards else (other, target)
                self._network.change(*ends, weather)

    def _note_unheard(self, target: str) -> None:
        if target == ROUTER:
            self._unheard_since = boot_s()

    def _freeze(self, target: str) -> None:
        self._frozen_since[target] = boot_s()
        self._part(target).signal(signal.SIGSTOP)

    def _pause(self, slot: str) -> bool:
        with suppress(APIError):
            self._cluster.engine.api.pause(slot)
            return True
        return False


class NomadTrouble(Trouble):
    """Hits agents, the registrar and jobs as well."""

    def __init__(self, cluster: NomadCluster) -> None:
        super().__init__(cluster)
        self._nomad = cluster
        self._operator = Operator(cluster)
        self._operators = ThreadPoolExecutor(thread_name_prefix="operator")
        self._ends_of_drains: list[Future[None]] = []

    def begin(self, fault: Fault) -> None:
        target, dice = fault.target, fault.dice
        match fault.kind:
            case Kind.FREEZE_NODE:
                # A node that is frozen has no agent that works, either.
                self._nomad.signal_agent(target, signal.SIGSTOP)
                super().begin(fault)
            case Kind.FREEZE_AGENT:
                self._nomad.signal_agent(target, signal.SIGSTOP)
            case Kind.KILL_AGENT:
                self._nomad.agents.agents[target].kill()
            case Kind.DRAIN:
                self._operator.drain(target, dice)
            case Kind.STOP_JOB:
                self._operator.stop_job(target, dice)
            case Kind.PURGE_JOB:
                self._operator.purge_job(target, dice)
            case Kind.STOP_ALLOCATION:
                self._operator.stop_allocation(target, dice)
            case Kind.RESTART_ALLOCATION:
                self._operator.restart_allocation(target, dice)
            case _:
                super().begin(fault)

    def end(self, fault: Fault) -> None:
        target = fault.target
        match fault.kind:
            case Kind.FREEZE_NODE:
                self._nomad.signal_agent(target, signal.SIGCONT)
                super().end(fault)
            case Kind.FREEZE_AGENT:
                self._nomad.signal_agent(target, signal.SIGCONT)
            case Kind.KILL_AGENT:
                self._nomad.start_agent(target)
            case Kind.DRAIN:
                # The servers may be away, and come back only by the end of another fault.
                ending = self._operators.submit(self._operator.end_drain, target)
                self._ends_of_drains.append(ending)
            case _:
                super().end(fault)

    def finish(self) -> None:
        for each in self._ends_of_drains:
            each.result()
        self._operators.shutdown()

    def _part(self, target: str) -> Part:
        return self._nomad.registrar if target == REGISTRAR else super()._part(target)
