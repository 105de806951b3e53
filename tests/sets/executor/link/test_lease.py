"""The lease of a link: whatever the network does, a node has killed its tasks before the set may run them elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sets.executor.link.frames import LinkError
from sets.executor.link.lease import BEATS_A_LEASE, KILL_SHARE, Grants, Tenure

LEASE_S = 2.0
delays = st.one_of(st.none(), st.floats(0, 10))
"""How long a frame takes; None: it is lost."""


@given(
    st.lists(st.tuples(delays, delays), max_size=30),
    st.floats(-1e5, 1e5),
    st.floats(0.999, 1.001),
)
def test_the_node_kills_before_the_set_counts_it_as_lost(
    beats: list[tuple[float | None, float | None]], offset_s: float, drift: float
) -> None:
    """A node whose clock stands elsewhere and runs unevenly, over a network that delays, reorders and loses."""

    def clock(now: float) -> float:
        return 1e6 + offset_s + now * drift

    grants, tenure = Grants(LEASE_S, 0.0), Tenure(LEASE_S, clock(0.0))
    sent, arrivals = [], []
    for number, (there_s, back_s) in enumerate(beats):
        at = number * LEASE_S / BEATS_A_LEASE
        sent.append((at, number))
        if there_s is not None:
            arrivals.append((at + there_s, back_s, number))
    clock_of: dict[int, int] = {}
    events: list[tuple[float, int, int]] = [(at, 0, number) for at, number in sent]
    events += [(at, 1, number) for at, _, number in arrivals]
    events += [(at + back_s, 2, number) for at, back_s, number in arrivals if back_s is not None]
    killed = lost = False
    newest = 0
    for now, kind, number in sorted(events):
        killed = killed or clock(now) >= tenure.over_at
        lost = lost or now >= grants.over_at
        if lost:
            assert killed, "the set runs elsewhere what the node still runs"
        if kind == 0 and not killed:
            clock_of[number] = tenure.beat(clock(now))
        elif kind == 1 and number in clock_of and not lost:
            grants.beat(now)
        elif kind == 2 and number in clock_of and not killed and clock_of[number] >= newest:
            # A connection keeps the order.
            newest = clock_of[number]
            tenure.granted(newest)
    # Nothing more arrives.
    assert (tenure.over_at - clock(0.0)) / drift <= grants.over_at


def test_a_grant_of_what_was_never_sent_is_refused() -> None:
    tenure = Tenure(LEASE_S, 100.0)
    clock_us = tenure.beat(100.5)
    tenure.granted(clock_us)
    assert tenure.over_at == pytest.approx(102.5)
    for wrong_us in (clock_us + 1, clock_us - 1, 0):
        with pytest.raises(LinkError):
            tenure.granted(wrong_us)


def test_silence_is_noticed_after_a_lease_and_the_node_has_a_quarter_more() -> None:
    grants = Grants(LEASE_S, 10.0)
    grants.beat(11.0)
    assert grants.silent_at == 13.0
    assert grants.over_at == 11.0 + LEASE_S * (1 + KILL_SHARE)
