"""The settings of the `rollout` section, described once. Pure data; see settings.py."""

from __future__ import annotations

from typing import Final

from router.config.settings import DAY_S, Kind, Section, Setting

ROLLOUT: Final = Section(
    "rollout",
    "The automated release of one set.",
    (
        Setting("set", Kind.TEXT, "The set that is released, the canary.", example="b", required=True),
        Setting(
            "steps",
            Kind.OTHER,
            "Steps in order: `{weight: 5, hold: 10m}` or `{pause: true}`. Weights grow from step to step.",
            required=True,
        ),
        Setting("abort_when", Kind.OTHER, "Limits; see below."),
        Setting(
            "on_no_data",
            Kind.OTHER,
            "`pause` or `abort`, where a step gets too few requests to judge.",
            "pause",
        ),
        Setting(
            "on_inconclusive",
            Kind.OTHER,
            "`pause` or `abort`, where a step has enough requests, and they leave it open whether the canary is "
            "worse.",
            "pause",
        ),
        Setting(
            "max_requests",
            Kind.WHOLE,
            "The wait for a verdict also ends after so many requests of the canary at a step. By default: by time "
            "alone.",
            least=1,
            most=10**9,
            example="20000",
        ),
        Setting(
            "dry_run",
            Kind.OTHER,
            "`true`: decide, but touch no weight. A list of checks: these only report.",
            "false",
        ),
        Setting(
            "max_wait",
            Kind.DURATION,
            "Longest wait after a hold for evidence or a gate. By default twice the hold, 5 minutes "
            "at least; for a gate a day.",
            least=1,
            most=7 * DAY_S,
            example="30m",
        ),
        Setting(
            "return_window",
            Kind.DURATION,
            "A set that carried as much this recently gets it back without the steps. By default: never.",
            least=0,
            most=30 * DAY_S,
            example="24h",
        ),
        Setting(
            "judge_by",
            Kind.OTHER,
            "Parts of the traffic that are also judged by themselves: a list of `image` and `account`. Name `account` "
            "only where every set checks who its callers are: else a stranger can fail in another's name.",
            "[image]",
        ),
        Setting(
            "shared_addresses",
            Kind.OTHER,
            "Addresses or networks that stand for many clients, such as gateways: a list. One client's address counts "
            "for a hundredth of what is judged at most, one of these does not.",
            example='["10.0.0.0/8"]',
        ),
        Setting("gate", Kind.TEXT, "URL that is asked before every step."),
        Setting("events", Kind.TEXT, "URL to which every event is posted as JSON."),
    ),
)
ABORT_WHEN: Final = Section(
    "rollout: {abort_when: …}",
    "How much worse than the control the canary may be. `off`: not judged.",
    (
        Setting(
            "min_requests", Kind.WHOLE, "Requests on either side before a check can pass.", "100", 1, 10**9
        ),
        Setting(
            "error_rate_over_baseline", Kind.PERCENT, "Errors, in points over the control's share.", "2%"
        ),
        Setting(
            "task_failures_over_baseline",
            Kind.PERCENT,
            "Failed tasks, in points over the control's share.",
            "5%",
        ),
        Setting(
            "p95_over_baseline",
            Kind.PERCENT,
            "The 95th percentile of latency, as a part of the control's.",
            "25%",
        ),
        Setting(
            "async_failures_over_baseline",
            Kind.PERCENT,
            "Failed asynchronous tasks, in points over the other sets' share.",
            "5%",
        ),
        Setting(
            "confidence",
            Kind.PERCENT,
            "1 − the chance that an equal canary is aborted anywhere in the rollout; from 50% to 99.99%.",
            "95%",
        ),
    ),
)
STEP: Final = Section(
    "rollout: {steps: [{…}]}",
    "One step.",
    (
        Setting("weight", Kind.OTHER, "The canary's weight in percent, two decimals at most."),
        Setting(
            "hold", Kind.DURATION, "How long the weight is held.", least=1, most=30 * DAY_S, example="10m"
        ),
        Setting("gate", Kind.TEXT, "URL that is asked before this step; by default the rollout's `gate`."),
        Setting("pause", Kind.TRUTH, "`true`, alone in its step: wait until somebody resumes."),
    ),
)
