"""Certificates: made, renewed, and replaced together with their authority."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from ops.cli import exits
from sets.executor.link.names import Certificates, names_in, node_name
from tests.ops.cli.program import Program


@pytest.fixture
def authority(gcompute: Program, tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    assert gcompute("cert", "ca", str(folder)).returncode == 0
    return folder


def issue(gcompute: Program, authority: Path, *words: str) -> Path:
    out = authority.parent / "-".join(words)
    done = gcompute("cert", *words, str(authority), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def meet(at_set: Path, at_executor: Path, node: str) -> frozenset[str]:
    """The names that the executor sees when both ends have greeted each other. Raises `ssl.SSLError`."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = Certificates(at_set).for_set().wrap_bio(down, up, server_hostname=node_name(node))
    server = Certificates(at_executor).for_executor().wrap_bio(up, down, server_side=True)
    done = set[ssl.SSLObject]()
    for _ in range(6):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert done == {client, server}
    return names_in(server.getpeercert() or {})


def test_a_set_and_an_executor_know_each_other(gcompute: Program, authority: Path) -> None:
    at_set, at_executor = issue(gcompute, authority, "set", "a"), issue(gcompute, authority, "executor", "n1")
    assert meet(at_set, at_executor, "n1") == {"a.set.general-compute"}
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'n2"):
        meet(at_set, at_executor, "n2")


def test_neither_end_can_play_the_other(gcompute: Program, authority: Path) -> None:
    at_set, at_executor = issue(gcompute, authority, "set", "a"), issue(gcompute, authority, "executor", "n1")
    with pytest.raises(ssl.SSLError):
        meet(at_executor, at_executor, "n1")
    with pytest.raises(ssl.SSLError):
        meet(at_set, at_set, "a")


def test_keys_are_for_their_owner_alone(gcompute: Program, authority: Path) -> None:
    out = issue(gcompute, authority, "set", "a")
    for key in (authority / "ca-key.pem", out / "identity.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in out.iterdir()) == ["ca.pem", "identity.pem"]
    assert b"PRIVATE" not in (out / "ca.pem").read_bytes()


def test_an_authority_is_not_made_twice(gcompute: Program, authority: Path) -> None:
    before = (authority / "ca-key.pem").read_bytes()
    done = gcompute("cert", "ca", str(authority))
    assert done.returncode == exits.NO_INPUT
    assert b"is there already" in done.stderr
    assert (authority / "ca-key.pem").read_bytes() == before


def test_the_authority_is_replaced_without_a_moment_in_which_nobody_is_known(
    gcompute: Program, authority: Path
) -> None:
    at_set, at_executor = issue(gcompute, authority, "set", "a"), issue(gcompute, authority, "executor", "n1")
    assert gcompute("cert", "rotate", str(authority)).returncode == 0
    for folder in (at_set, at_executor):
        (folder / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    assert meet(at_set, at_executor, "n1"), "both certificates are of the old authority"
    issue(gcompute, authority, "set", "a")
    assert meet(at_set, at_executor, "n1"), "one of each"
    assert gcompute("cert", "retire", str(authority)).returncode == 0
    (at_set / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    with pytest.raises(ssl.SSLError):
        meet(at_set, at_executor, "n1")
    issue(gcompute, authority, "executor", "n1")
    assert meet(at_set, at_executor, "n1")


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("set", "A b"), b"not lower-case letters", exits.USAGE),
        (("executor", "n1."), b"not lower-case letters", exits.USAGE),
        (("set", "a"), b"ca-key.pem is missing; make an authority: gcompute cert ca", exits.NO_INPUT),
    ],
)
def test_mistakes_are_told(
    gcompute: Program, tmp_path: Path, words: tuple[str, str], said: bytes, code: int
) -> None:
    done = gcompute("cert", *words, str(tmp_path / "none"), "--out", str(tmp_path / "out"))
    assert done.returncode == code
    assert said in done.stderr
    assert not (tmp_path / "out").exists()
