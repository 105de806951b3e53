"""The ends of certificates: seen in the folder and in the handshake, warned of in time, shown in the metrics."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ops.certificates.authority import Authority
from sets.api.metrics import SetMetrics
from sets.executor.link.expiry import AGAIN_S, DAY_S, WARN_S, ExpiryWatch, own_ends, peer_end
from sets.executor.link.names import Certificates
from tests.scheduler.conftest import until
from tests.sets.executor.link.rig import Owner, Rig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority(tmp_path / "authority")
    authority.make()
    authority.issue_to_set("a", tmp_path / "a", 30)
    return tmp_path / "a"


def days_from_now(unix_s: float) -> int:
    return round((unix_s - time.time()) / DAY_S)


def test_a_folder_shows_its_own_end_and_the_authority_s(folder: Path) -> None:
    ends = own_ends(Certificates(folder))
    assert {name: days_from_now(end) for name, end in ends.items()} == {"own": 30, "authority": 3650}


def test_the_authority_that_ends_last_counts(folder: Path, tmp_path: Path) -> None:
    """After a rotation ca.pem names the earlier authorities, too, which may end without harm."""
    authority = Authority(tmp_path / "authority")
    first = own_ends(Certificates(folder))["authority"]
    authority.rotate()
    authority.issue_to_set("a", folder, 30)
    assert own_ends(Certificates(folder))["authority"] >= first


@pytest.mark.parametrize("text", [None, "", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_cannot_be_read_is_left_out(folder: Path, text: str | None) -> None:
    (folder / "identity.pem").unlink()
    if text is not None:
        (folder / "identity.pem").write_text(text)
    assert set(own_ends(Certificates(folder))) == {"authority"}


def test_a_peer_without_a_certificate_has_no_end() -> None:
    assert peer_end({}) is None
    assert peer_end({"notAfter": "Jan  5 09:34:43 2028 GMT"}) == 1830677683


class Clock:
    now = 1_000_000.0


def test_a_certificate_is_warned_of_once_a_day_until_it_is_renewed() -> None:
    clock = Clock()
    ends = {"own": clock.now + WARN_S + 1, "n1": clock.now + 10 * WARN_S}
    watch = ExpiryWatch(lambda: ends, now=lambda: clock.now)
    with capture_logs() as lines:
        watch.check()
        assert lines == [], "there is time enough"
        clock.now += 2
        watch.check()
        watch.check()
        assert [(each["event"], each["certificate"], each["days_left"]) for each in lines] == [
            ("certificate ends soon", "own", 21.0)
        ]
        clock.now += AGAIN_S
        watch.check()
        assert len(lines) == 2
        clock.now += WARN_S
        watch.check()
        assert (lines[-1]["event"], lines[-1]["days_left"]) == ("certificate has ended", -1.0)
        ends["own"] = clock.now + 2 * WARN_S
        clock.now += AGAIN_S
        watch.check()
        assert len(lines) == 3, "it was renewed"


async def test_a_set_knows_the_ends_of_the_nodes_that_it_reached(rig: Rig) -> None:
    assert set(rig.remote.certificates_end()) >= {"own", "authority"}
    await rig.linked()
    assert {name: days_from_now(end) for name, end in rig.remote.certificates_end().items()} == {
        "own": 10,
        "authority": 3650,
        "n1": 10,
    }


async def test_both_ends_warn_when_they_begin(rig: Rig) -> None:
    """The certificates of the rig end in ten days."""
    with capture_logs() as lines:
        server = rig.new_server()
        port = await server.open("127.0.0.1", 0)
        remote = rig.new_remote(port)
        await remote.open(Owner())
        await until(lambda: sum(each["event"] == "certificate ends soon" for each in lines) == 2)
    assert {each["certificate"] for each in lines if each["event"] == "certificate ends soon"} == {"own"}
    await remote.close()
    await server.close("the test is over")


def test_the_metrics_show_what_is_left() -> None:
    metrics = SetMetrics()
    metrics.watch_certificates(lambda: {"own": time.time() + 10 * DAY_S, "n1": time.time() - DAY_S})
    lines = [
        line
        for line in metrics.text(ready=True, launcher_up=True).decode().splitlines()
        if line.startswith("gc_link_certificate_expires")
    ]
    found = dict(line.rsplit(" ", 1) for line in lines)
    name = "gc_link_certificate_expires_seconds"
    assert round(float(found[f'{name}{{certificate="own"}}']) / DAY_S) == 10
    assert round(float(found[f'{name}{{certificate="n1"}}']) / DAY_S) == -1
