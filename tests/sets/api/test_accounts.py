"""Who asks: bearer tokens where authentication is on, and what an account's scopes, quotas and suspension allow."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from scheduler.accounts.account import Quotas, Scope
from scheduler.accounts.book import hash_of, name_in
from tests.sets.api.conftest import Api, StartApi, problem, until
from tests.sets.api.people import People, bearer
from tests.sets.api.test_life import metric

pytestmark = pytest.mark.docker


class Known(NamedTuple):
    """The people of a test, and their tokens."""

    people: People
    alice: str
    alices_other: str
    bob: str


@pytest.fixture
def known(tmp_path: Path) -> Known:
    people = People(tmp_path)
    people.add("alice")
    people.add("bob-x", Quotas(input_mib=1))
    people.add("nobody")
    return Known(people, *(people.token(name).token for name in ("alice", "alice", "bob-x")))


def test_authentication(start_api: StartApi, known: Known) -> None:
    api = start_api(known.people.settings)
    for path in ("/livez", "/readyz", "/openapi.json"):
        assert api.http.get(path).status_code == 200
    refused_everywhere(api, known)
    for token in (known.alice, known.alices_other):
        assert api.run("say", "x", headers=bearer(token)).content == b"x\n"
    assert api.run("say", "x", headers={"Authorization": f"bearer  {known.alice}"}).status_code == 200
    task = api.submit("say", "x", headers=bearer(known.alice))
    # The header that names an account where nobody is checked counts nothing here.
    hers = api.http.get(
        f"/v1/tasks/{task['id']}", headers={**bearer(known.alices_other), "X-Account": "bob-x"}
    )
    assert hers.status_code == 200
    his = api.http.get(f"/v1/tasks/{task['id']}", headers=bearer(known.bob))
    problem(his, 404, "task-unknown")
    large = b"x" * ((1 << 20) + 1)
    assert problem(api.run("sink", body=large, headers=bearer(known.bob)), 413, "input-too-large")
    assert api.run("sink", body=large, headers=bearer(known.alice)).status_code == 200


def refused_everywhere(api: Api, known: Known) -> None:
    secret = known.alice.rpartition("_")[2]
    wrong: tuple[dict[str, str], ...] = (
        {},
        {"X-Account": "alice"},
        {"Authorization": ""},
        {"Authorization": known.alice},
        {"Authorization": f"Basic {known.alice}"},
        {"Authorization": "Bearer"},
        bearer("gc_alice_wrong"),
        bearer("gc_alice_"),
        bearer(known.alice[:-1]),
        bearer(known.alice[:-1] + ("0" if known.alice[-1] != "0" else "1")),
        bearer(f"gc_bob-x_{secret}"),
        bearer(f"gc_bob-x_{known.alice}"),
        bearer(hash_of(known.alice)),
        bearer("gc_nobody_"),
        bearer("gc_nobody_" + "0" * 60),
        bearer(f"gc_stranger_{secret}"),
        bearer(known.alice + "\u00e9"),
        bearer("x" * 8000),
    )
    for headers in wrong:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        for method, path in (
            ("POST", api.target("say", "x")),
            ("POST", "/v1/run/no-such-image:1"),
            ("GET", "/v1/tasks"),
            ("GET", "/v1/tasks/x"),
            ("GET", "/v1/tasks/x/stdout"),
            ("POST", "/v1/tasks/x/cancel"),
        ):
            answer = api.http.request(method, path, headers=raw)
            found = problem(answer, 401, "unauthorized")
            assert found["executed"] is False
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_scopes_and_ends_of_tokens(start_api: StartApi, known: Known) -> None:
    people = known.people
    looking = people.token("alice", Scope.READ).token
    images = people.token("alice", Scope.IMAGES).token
    past = people.token("alice", expires_us=2_000_000, changes=people.changes(1_000_000)).token
    api = start_api(people.settings)
    task = api.submit("say", "x", headers=bearer(known.alice))
    assert api.http.get(f"/v1/tasks/{task['id']}", headers=bearer(looking)).status_code == 200
    for token in (looking, images):
        found = problem(api.run("say", "x", headers=bearer(token)), 403, "forbidden")
        assert "no scope `run`" in found["detail"]
    problem(api.http.get("/v1/tasks", headers=bearer(images)), 403, "forbidden")
    assert "expired" in problem(api.run("say", "x", headers=bearer(past)), 401, "unauthorized")["detail"]


def test_changes_count_while_the_set_runs(start_api: StartApi, known: Known) -> None:
    """A new account, a smaller quota, a suspension and a removed token are seen without a restart."""
    people = known.people
    api = start_api(people.settings)
    people.add("carol")
    carol = people.token("carol")
    until(
        lambda: api.run("say", "x", headers=bearer(carol.token)).status_code == 200, "carol's token is known"
    )
    people.file.change(lambda book: (people.changes().set_quotas(book, "carol", Quotas(input_mib=0)), None))
    until(
        lambda: api.run("sink", body=b"x", headers=bearer(carol.token)).status_code == 413,
        "carol may send nothing",
    )
    lasting = api.submit("sleep", "1000", headers=bearer(carol.token))
    people.file.change(
        lambda book: (people.changes().suspend(book, "carol", "unpaid since May", "finish"), None)
    )
    until(lambda: api.run("say", "x", headers=bearer(carol.token)).status_code == 403, "she is suspended")
    for method, path in (
        ("POST", api.target("say", "x")),
        ("POST", f"/v1/batches/{api.image}"),
        ("POST", f"/v1/tasks/{lasting['id']}/replay"),
        ("POST", "/v1/batches/x/retry"),
    ):
        told = problem(api.http.request(method, path, headers=bearer(carol.token)), 403, "account-suspended")
        assert "unpaid since May" in told["detail"]
    # She may look at what she has, and it goes on.
    shown = api.http.get(f"/v1/tasks/{lasting['id']}", headers=bearer(carol.token)).json()
    assert shown["state"] in ("queued", "running")
    people.file.change(lambda book: (people.changes().suspend(book, "carol", "stolen key", "cancel"), None))
    ended = api.http.get(f"/v1/tasks/{lasting['id']}?wait=60", headers=bearer(carol.token)).json()
    assert ended["state"] == "cancelled"
    assert api.run("say", "x", headers=bearer(known.alice)).status_code == 200
    people.file.change(lambda book: (people.changes().remove_token(book, "carol", carol.token_id), None))
    until(
        lambda: api.http.get("/v1/tasks", headers=bearer(carol.token)).status_code == 401,
        "carol's token is gone",
    )


def test_a_set_whose_file_is_damaged_goes_on_and_says_so(start_api: StartApi, known: Known) -> None:
    people = known.people
    api = start_api(f"{people.settings}operators: {{ops: {{token_hashes: [{hash_of('gc_ops_s3cret')}]}}}}\n")
    operator = bearer("gc_ops_s3cret")
    version = people.book().version
    assert metric(api, "gc_accounts_version", operator) == version
    people.path.write_bytes(b"damaged")
    until(lambda: metric(api, "gc_accounts_accepted", operator) == 0, "the set has seen it")
    assert api.run("say", "x", headers=bearer(known.alice)).content == b"x\n"


@pytest.mark.parametrize(
    ("token", "account"),
    [
        ("gc_alice_s3cret", "alice"),
        ("gc_bob-x_s", "bob-x"),
        ("gc_a_b_c", None),
        ("gc_alice_", None),
        ("gc__x", None),
        ("gc_Alice_x", None),
        ("xx_alice_x", None),
        ("gc", None),
        ("", None),
    ],
)
def test_the_account_that_a_token_names(token: str, account: str | None) -> None:
    assert name_in(token) == account
