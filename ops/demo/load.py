"""Runs many small tasks from a few clients: measures which set ran each, and how long each took."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from ops.client import Client, ClientError


@dataclass
class Load:
    """The results. Latencies are those of whole calls, seen by their client, in milliseconds."""

    seconds: float = 0.0
    sets: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    cold_starts: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> int:
        return self.sets.total()

    @property
    def per_second(self) -> float:
        return self.tasks / self.seconds if self.seconds else 0.0

    def percent(self, name: str) -> float:
        """Return the share of the tasks that this set ran."""
        return 100 * self.sets[name] / self.tasks if self.tasks else 0.0

    def quantile_ms(self, share: float) -> float:
        """Return the latency that this share of the tasks did not exceed; 0.5 is the median."""
        if len(self.latencies_ms) < 2:
            return self.latencies_ms[0] if self.latencies_ms else 0.0
        return statistics.quantiles(self.latencies_ms, n=1000, method="inclusive")[round(share * 1000) - 1]


def run_small_tasks(url: str, image: str, count: int, *, clients: int = 4, body: bytes = b"hello\n") -> Load:
    """Run `count` sync tasks, each of which must return its body. Failures are counted, not raised."""
    load, lock, left, stop = Load(), threading.Lock(), iter(range(count)), threading.Event()

    def work() -> None:
        with Client(url) as client:
            while True:
                with lock:
                    if stop.is_set() or next(left, None) is None:
                        return
                began = time.perf_counter()
                try:
                    with client.run(image, body=body) as output:
                        same = output.read() == body
                    took_ms = 1000 * (time.perf_counter() - began)
                except ClientError as error:
                    with lock:
                        load.failures.append(str(error))
                    continue
                with lock:
                    if not same:
                        load.failures.append(f"task {output.task_id} did not return its input")
                    load.sets[output.set_name or "?"] += 1
                    load.latencies_ms.append(took_ms)
                    load.cold_starts += bool(output.facts and output.facts.cold_start)

    began = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        stop.set()  # after an interrupt no further tasks are wanted
    load.seconds = time.perf_counter() - began
    return load
