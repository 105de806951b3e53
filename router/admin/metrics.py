"""The counts of all workers, and the rollout, as Prometheus metrics. Pure; every name begins with `gc_router_`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from router.admin.counts import Counts, latency
from router.admin.status import Snapshot, room_of
from router.choosing.serving import SERVING
from router.counting.stats import COARSE, LATENCY_BOUNDS_S
from router.counting.tally import Outcome
from router.rollout.checks import Verdict
from router.rollout.states import Phase

_ROOM: Final = {
    "cores": "Cores of a set, as reported at its last health check.",
    "cores_busy": "Cores of a set that running tasks occupy.",
    "slots": "Slots of a set, in any state.",
    "slots_max": "Maximum number of slots of a set.",
    "queued": "Tasks that wait for a slot in a set.",
    "oldest_wait_s": "Longest wait, in seconds, of a task that waits in a set.",
    "saturated": "1 while tasks wait in a set and all its cores or slots are in use.",
}
_PLAIN: Final = {
    "requests": "Requests whose head was read.",
    "cancelled": "Requests whose client went away.",
    "retries_over_budget": "Retries that the budget refused.",
    "stalled_clients": "Clients that were cut off because they did not read their answer.",
    "handshakes_failed": "TLS handshakes that clients did not complete.",
    "access_log_lines": "Requests in the access log.",
    "access_log_sampled_out": "Successful requests left out of the access log by `sample`.",
    "access_log_errors_dropped": "Failed requests left out of the access log by `errors_per_s`.",
    "access_log_lost": "Lines of the access log that could not be written in time.",
}


def metrics_text(
    snapshots: Sequence[Snapshot], counts: Counts, missing: Sequence[int], rollout: Mapping[str, Any] | None
) -> bytes:
    """Return the text that Prometheus reads. `snapshots`: of the workers that answer; `missing`: the others; `counts`:
    of all together; `rollout`: its status, None if the router has none."""
    registry = CollectorRegistry()
    registry.register(_Collected(snapshots, counts, missing, rollout))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(
        self,
        snapshots: Sequence[Snapshot],
        counts: Counts,
        missing: Sequence[int],
        rollout: Mapping[str, Any] | None,
    ) -> None:
        self._snapshots = snapshots
        self._counts = counts
        self._missing = missing
        self._rollout = rollout

    def collect(self) -> Iterator[Metric]:
        snapshots, counts = self._snapshots, self._counts
        first = min(snapshots, key=lambda each: each.version)
        yield _gauge("workers", "Workers that answer.", len(snapshots))
        yield _gauge(
            "workers_missing",
            "Workers that do not answer. Their last counts are included; gauges leave them out.",
            len(self._missing),
        )
        yield _counter("worker_starts", "Workers started since the router began.", counts.starts)
        for name, text in _PLAIN.items():
            yield _counter(name, text, counts.plain.get(name, 0))
        yield _counter(
            "config_reloads", "Configurations that came into force since the start.", counts.reloads
        )
        yield _counter("config_failures", "Configurations refused since the start.", counts.reload_failures)
        good = all(each.config_error is None for each in snapshots)
        yield _gauge("config_ok", "1 if the present file is in force, 0 if it has mistakes.", float(good))
        tls = [each.tls_ok for each in snapshots if each.tls_ok is not None]
        if tls:
            yield _gauge(
                "tls_ok", "1 if the present certificate is in use, 0 if it cannot be used.", float(all(tls))
            )
        ends = [each.tls_expires_at for each in snapshots if each.tls_expires_at is not None]
        if ends:
            yield _gauge(
                "tls_expires_at_seconds",
                "When the certificate for clients ends, in seconds since 1970.",
                min(ends),
            )
        yield _gauge(
            "config_version",
            "Version of the configuration in force, the lowest of all workers.",
            first.version,
        )
        yield _gauge("active_requests", "Requests in work.", sum(each.active for each in snapshots))
        yield _gauge("connections", "Open client connections.", sum(each.connections for each in snapshots))
        yield _gauge(
            "connections_max",
            "Maximum number of client connections; file descriptors may lower it.",
            sum(each.connections_max for each in snapshots),
        )
        yield _labelled("problems", "Problems that the router itself answered.", "problem", counts.problems)
        yield from _set_counts(counts)
        yield from _set_gauges(snapshots, first)
        if self._rollout is not None:
            yield from _rollout(self._rollout)
            yield _outcomes(counts)


def _set_counts(counts: Counts) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "gc_router_answers", "Answers relayed, by set and status.", labels=["set", "status"]
    )
    failures = CounterMetricFamily("gc_router_failures", "Attempts that failed.", labels=["set", "failure"])
    seconds = HistogramMetricFamily(
        "gc_router_answer_seconds", "Time from a request's head to the end of its answer.", labels=["set"]
    )
    for name, each in counts.sets.items():
        for status, count in each.statuses.items():
            answers.add_metric([name, str(status)], count)
        for failure, count in each.failures.items():
            failures.add_metric([name, failure], count)
        bounds = (*map(str, LATENCY_BOUNDS_S), "+Inf")
        sums = map(float, latency(each, COARSE))
        seconds.add_metric([name], list(zip(bounds, sums, strict=True)), each.latency_sum_s)
    yield from (answers, failures, seconds)
    of_sets = counts.sets.items()
    yield _labelled(
        "retries", "Retries sent to a set.", "set", {name: each.retries for name, each in of_sets}
    )
    yield _labelled(
        "back_pressure",
        "Answers with which a set refused a request (`executed: false`).",
        "set",
        {name: each.back_pressure for name, each in of_sets},
    )
    yield _labelled(
        "truncated",
        "Answers that broke off after they had begun.",
        "set",
        {name: each.truncated for name, each in of_sets},
    )
    yield _labelled(
        "ejections",
        "Ejections by passive checks, summed over the workers.",
        "set",
        {name: each.ejections for name, each in of_sets},
    )


def _set_gauges(snapshots: Sequence[Snapshot], first: Snapshot) -> Iterator[Metric]:
    up = _set_gauge(
        "set_up",
        "Share of the workers that consider a set up (or starting slowly).",
    )
    weight = _set_gauge("set_weight_percent", "Weight of a set in the file, in percent.")
    effective = _set_gauge(
        "set_effective_weight_percent",
        "Share of new work that a set gets, in percent, by health, state and rollout.",
    )
    inflight = _set_gauge("set_inflight", "Requests in flight at a set, except reads and waits.")
    reading = _set_gauge("set_reading", "Reads and waits for tasks in flight at a set; they take no room.")
    most = _set_gauge("set_max_inflight", "Maximum number of requests in flight at a set, over all workers.")
    idle = _set_gauge("set_idle_connections", "Idle connections kept to a set.")
    build = GaugeMetricFamily(
        "gc_router_set_build_info",
        "Always 1; the label `build` is the build that a set reports.",
        labels=["set", "build"],
    )
    gauges = {key: _set_gauge(f"set_{key}", text) for key, text in _ROOM.items()}
    for name, own in first.sets.items():
        each = [snapshot.sets[name] for snapshot in snapshots if name in snapshot.sets]
        up.add_metric([name], sum(one.health in SERVING for one in each) / len(each))
        weight.add_metric([name], own.weight)
        effective.add_metric([name], sum(one.effective_weight for one in each) / len(each))
        inflight.add_metric([name], sum(one.inflight for one in each))
        reading.add_metric([name], sum(one.reading for one in each))
        idle.add_metric([name], sum(one.idle_connections for one in each))
        if own.max_inflight is not None:
            most.add_metric([name], own.max_inflight)
        room = room_of([one.room for one in each])
        if room["build"] is not None:
            build.add_metric([name, room["build"]], 1)
        for key, family in gauges.items():
            if room[key] is not None:
                family.add_metric([name], float(room[key]))
    yield from (up, weight, effective, inflight, reading, most, idle, build, *gauges.values())


def _rollout(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield _one_of("rollout_phase", "Phase of the rollout.", "phase", Phase, status["phase"])
    yield _gauge("rollout_step", "Step of the rollout, from 1; 0 without one.", status["step"] or 0)
    yield _gauge("rollout_steps", "Number of steps of the rollout.", status["of"])
    weight = _set_gauge("rollout_weight_percent", "Weight of the canary in force, in percent.")
    if status["set"] is not None:
        weight.add_metric([status["set"]], status["now"])
    yield weight
    yield _gauge(
        "rollout_hands_off",
        "1 while the file's weights count because they were edited during a rollout.",
        float(status["hands_off"]),
    )
    yield _gauge("rollout_held_seconds", "Time that this step has been held.", status["held_s"])
    yield _gauge("rollout_hold_left_seconds", "Time left of this step's hold.", status["hold_left_s"])
    yield _gauge(
        "rollout_waited_seconds",
        "Time that the rollout has waited for a verdict or a gate.",
        status["waited_s"],
    )
    yield _gauge(
        "rollout_paused_seconds", "Time that the rollout has been paused; 0 if it is not.", status["paused_s"]
    )
    open_ = GaugeMetricFamily(
        "gc_router_rollout_open_requests",
        "Compared requests without an answer; 0 without a rollout.",
        labels=["side"],
    )
    oldest = GaugeMetricFamily(
        "gc_router_rollout_oldest_open_seconds", "How long the oldest of them has waited.", labels=["side"]
    )
    # The status keeps what was open at the end of a rollout; an alert must clear by then.
    told = status["open"] if status["comparing"] else None
    for side in ("canary", "control"):
        open_.add_metric([side], told[side]["requests"] if told else 0)
        oldest.add_metric([side], (told[side]["oldest_s"] or 0.0) if told else 0.0)
    yield from (open_, oldest)
    yield _one_of("rollout_verdict", "Verdict of all checks together.", "verdict", Verdict, status["verdict"])
    verdicts = GaugeMetricFamily(
        "gc_router_rollout_check", "Verdict of each check.", labels=["check", "verdict"]
    )
    differences = GaugeMetricFamily(
        "gc_router_rollout_check_difference",
        "Canary minus control in points; for latency in percent of control.",
        labels=["check"],
    )
    thresholds = GaugeMetricFamily(
        "gc_router_rollout_check_threshold", "Allowed difference of each check.", labels=["check"]
    )
    for check in status["checks"]:
        for verdict in Verdict:
            verdicts.add_metric([check["name"], verdict], float(check["verdict"] == verdict))
        if check["difference"] is not None:
            differences.add_metric([check["name"]], check["difference"])
        if check["threshold"] is not None:
            thresholds.add_metric([check["name"]], check["threshold"])
    yield from (verdicts, differences, thresholds)
    requests = GaugeMetricFamily(
        "gc_router_rollout_requests", "Requests compared since the weight last changed.", labels=["cohort"]
    )
    for cohort, count in status["requests"].items():
        requests.add_metric([cohort], count)
    yield requests
    yield _counter("rollout_events", "Events of all rollouts so far.", _last_serial(status))
    yield _gauge("rollout_leader", "1 if this router leads the rollout.", float(status["leader"]))
    yield _gauge("rollout_ok", "1 if the rollout's state file can be read.", float(status["error"] is None))


def _outcomes(counts: Counts) -> Metric:
    family = GaugeMetricFamily(
        "gc_router_rollout_outcomes",
        "Requests of the cohorts since the weight last changed, by outcome; `shed`: the set was full.",
        labels=["cohort", "outcome"],
    )
    for cohort, tally in (("canary", counts.canary), ("control", counts.control)):
        for outcome in Outcome:
            family.add_metric([cohort, outcome.value], tally.count_of(outcome))
    return family


def _last_serial(status: Mapping[str, Any]) -> int:
    return status["events"][-1]["serial"] if status["events"] else 0


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"gc_router_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gc_router_{name}", text, value=value)


def _set_gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gc_router_{name}", text, labels=["set"])


def _labelled(name: str, text: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"gc_router_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _one_of(
    name: str, text: str, label: str, values: type[Phase] | type[Verdict], now: str | None
) -> GaugeMetricFamily:
    """1 for the value that it has, 0 for all others, so that an alert can name one."""
    family = GaugeMetricFamily(f"gc_router_{name}", text, labels=[label])
    for value in values:
        family.add_metric([value.value], float(value == now))
    return family
