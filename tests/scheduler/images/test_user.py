"""USER as numbers, as the engine resolves it. No engine is asked; the real one's word is in test_docker_layouts.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.images.user import GROUP, MAX_ID, PASSWD, Owner, UserUnusable, home_of, parse_user

PASSWD_FILE = b"""\
# a comment: it is no user
root:x:0:0:root:/root:/bin/sh
app:x:1000:2000:App:/home/app:/bin/sh\r
  app:x:9:9::/:
short:x:5
bare
words:x:five:
42:x:6:6::/:
far:x:99999999999999999999:0::/:
below:x:-1:0::/:
"""
GROUP_FILE = b"root:x:0:\napps:x:3000:app,other\nbad:x:many:\nfar:x:4294967295:\n"
FILES: dict[str, bytes | None] = {PASSWD: PASSWD_FILE, GROUP: GROUP_FILE}


@pytest.mark.parametrize(
    ("user", "owner", "needed"),
    [
        ("", Owner(0, 0), ""),
        ("root", Owner(0, 0), ""),
        ("0", Owner(0, 0), ""),
        ("0:5", Owner(0, 5), ""),
        (":5", Owner(0, 5), ""),
        ("root:apps", Owner(0, 0), ""),
        ("1000", Owner(1000, 0), ""),
        ("+7", Owner(7, 0), ""),
        ("1000:", Owner(1000, 0), ""),
        ("1000:1001", Owner(1000, 1001), ""),
        ("1000:1001:5", Owner(1000, 1001), ""),
        (f"{MAX_ID}:{MAX_ID}", Owner(MAX_ID, MAX_ID), ""),
        ("1000:apps", Owner(1000, 3000), GROUP),
        # The user's primary group, not one that it is also in.
        ("app", Owner(1000, 2000), PASSWD),
        ("app:7", Owner(1000, 7), PASSWD),
        ("app:apps", Owner(1000, 3000), PASSWD + GROUP),
        ("app:bad", Owner(1000, 0), PASSWD + GROUP),
        ("short", Owner(5, 0), PASSWD),
        ("bare", Owner(0, 0), PASSWD),
        ("words", Owner(0, 0), PASSWD),
        # Numbers are never names.
        ("42", Owner(42, 0), ""),
        ("# a comment", Owner(0, 0), PASSWD),
    ],
)
def test_users_that_there_are(user: str, owner: Owner, needed: str) -> None:
    parsed = parse_user(user)
    assert "".join(parsed.files_needed()) == needed
    assert parsed.owner({path: FILES[path] for path in parsed.files_needed()}) == owner


@pytest.mark.parametrize(
    ("uid", "passwd", "home"),
    [
        (0, PASSWD_FILE, ""),  # The comment, which is a line as any other, and has uid 0.
        (1000, PASSWD_FILE, "/home/app"),
        (9, PASSWD_FILE, "/"),
        (5, PASSWD_FILE, ""),
        (42, PASSWD_FILE, "/"),
        (7, PASSWD_FILE, "/"),
        (7, None, "/"),
        (7, b"a:x:7:7::/a:/bin/sh\nb:x:7:7::/b:\n", "/a"),
        (7, b"a:x:7:7::relative:/bin/sh:more\n", "relative"),
        (7, b"a:x:7:7::\xff:\n", "\udcff"),
    ],
)
def test_the_home_of_a_user(uid: int, passwd: bytes | None, home: str) -> None:
    assert home_of(uid, passwd) == home


@pytest.mark.parametrize("user", ["-1", "1000:-1", str(MAX_ID + 1), f"0:{MAX_ID + 1}", "9" * 5000])
def test_numbers_that_are_no_users_need_no_file(user: str) -> None:
    with pytest.raises(UserUnusable, match="USER is out of range"):
        parse_user(user)


@pytest.mark.parametrize(
    ("user", "files", "why"),
    [
        ("ap", FILES, r"its USER does not exist .*find user ap: no matching entries in passwd file"),
        ("x", FILES, "unable to find user x: "),
        ("app", {PASSWD: None, GROUP: GROUP_FILE}, r"find user app: the image has no file /etc/passwd"),
        ("app", {}, r"no file /etc/passwd"),
        (
            "app:none",
            FILES,
            r"group of its USER does not exist .*group none: no matching entries in group file",
        ),
        ("7:apps", {GROUP: None}, r"unable to find group apps: the image has no file /etc/group"),
        ("far", FILES, "out of range"),
        ("below", FILES, "out of range"),
        ("app:far", FILES, "out of range"),
        ("x" * 70000, FILES, r"find user x{64}…: "),
        ("a\nb", FILES, r"find user 'a\\nb'"),
        ("\ud800", FILES, r"find user '\\ud800'"),
        ("٣", FILES, "find user ٣: "),
        ("1_0", FILES, "find user 1_0: "),
        (" 1", FILES, "find user  1: "),
    ],
)
def test_users_that_there_are_not(user: str, files: dict[str, bytes | None], why: str) -> None:
    with pytest.raises(UserUnusable, match=why):
        parse_user(user).owner(files)


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_an_image_holds_the_numbers_are_a_users_or_there_are_none(
    user: str, passwd: bytes, group: bytes
) -> None:
    files: dict[str, bytes | None] = {PASSWD: passwd + b"\n" + user.encode() + b":" + passwd, GROUP: group}
    try:
        owner = parse_user(user).owner(files)
    except UserUnusable:
        return
    assert 0 <= owner.uid <= MAX_ID
    assert 0 <= owner.gid <= MAX_ID
