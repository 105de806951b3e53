"""What of a body may be sent again: all of it up to a bound, else nothing."""

from __future__ import annotations

from router.relay.replay import Replay


def test_a_short_body_is_kept_in_copies() -> None:
    buffer = bytearray(b"abcdef")
    replay = Replay(6)
    replay.add([memoryview(buffer)[:3], memoryview(buffer)[3:]])
    buffer[:] = b"xxxxxx"
    assert replay.whole
    assert b"".join(replay.pieces) == b"abcdef"


def test_beyond_the_bound_nothing_is_held_any_more() -> None:
    replay = Replay(6)
    replay.add([b"abc"])
    replay.add([b"defg"])
    replay.add([b"h"])
    assert not replay.whole
    assert replay.pieces == []
