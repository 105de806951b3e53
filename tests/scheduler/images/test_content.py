"""What a user may see of a HOME that others have files in."""

from __future__ import annotations

import pytest

from scheduler.images.content import Entry, Kind, seen_by
from scheduler.images.user import Owner

ROOT, APP = Owner(), Owner(1000, 1000)


@pytest.mark.parametrize(
    ("owner", "mode", "user", "seen"),
    [
        (APP, 0o4600, APP, 0o600),
        (ROOT, 0o644, APP, 0o444),
        (ROOT, 0o755, APP, 0o555),
        (Owner(0, 1000), 0o640, APP, 0o440),
        # Nobody sees more than under Docker.
        (ROOT, 0o600, APP, None),
        (Owner(0, 1000), 0o604, APP, None),
        (APP, 0o600, ROOT, 0o600),
    ],
)
def test_files_keep_the_rights_that_the_user_has(
    owner: Owner, mode: int, user: Owner, seen: int | None
) -> None:
    file = Entry("/h/x", Kind.FILE, owner, mode, data=b"secret")
    (found,) = seen_by(user, [file])
    assert found.owner == user
    assert (found.mode, found.data) == ((0, b"") if seen is None else (seen, b"secret"))


def test_nothing_is_seen_of_a_folder_that_is_closed() -> None:
    paths = {"/h": 0o755, "/h/closed": 0o700, "/h/closed/x": 0o755, "/h/closed-not": 0o755}
    entries = [Entry(path, Kind.FOLDER, ROOT, mode) for path, mode in paths.items()]
    assert [entry.path for entry in seen_by(APP, entries)] == ["/h", "/h/closed", "/h/closed-not"]
    assert [entry.path for entry in seen_by(ROOT, entries)] == list(paths)
