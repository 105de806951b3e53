"""One writer among several processes."""

from __future__ import annotations

from pathlib import Path

from router.config.history import History
from router.config.history_writer import HistoryWriter
from router.config.reader import load

TEXT = b'version: %d\nsets: {a: {url: "http://127.0.0.1:9"}}\ndefault: {weights: {a: 100}}\n'


def test_who_has_the_lock_writes_and_the_next_one_after_it(tmp_path: Path) -> None:
    history = History(tmp_path / "h")
    first, second = HistoryWriter(history), HistoryWriter(history)
    one, two, three = (load(TEXT % version).table for version in (1, 2, 3))
    assert first.record(TEXT % 1, one, 10.0)
    assert not second.record(TEXT % 2, two, 11.0)
    assert not second.record_weights(one, "ops", "why", 11.0)
    assert [change.version for change in history.changes()] == [1]
    first.close()
    assert second.record(TEXT % 3, three, 12.0)
    assert not first.record(TEXT % 2, two, 13.0)
    assert [change.version for change in history.changes()] == [1, 3]
    second.close()
