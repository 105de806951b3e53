"""Who asks: bearer tokens where authentication is on."""

from __future__ import annotations

import hashlib

import pytest

from sets.api.accounts import name_in
from tests.sets.api.conftest import Api, StartApi, problem

ALICE, ALICES_OTHER, BOB = "gc_alice_s3cret", "gc_alice_2nd", "gc_bob-x_s3cret"


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture(scope="module")
def settings() -> str:
    return (
        "authentication: true\n"
        "accounts:\n"
        f"  alice: {{token_hashes: [{hashed(ALICE)}, {hashed(ALICES_OTHER)}]}}\n"
        f"  bob-x: {{token_hashes: [{hashed(BOB)}], max_input_mib: 1}}\n"
        f"  nobody: {{token_hashes: []}}\n"
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.docker
def test_authentication(start_api: StartApi, settings: str) -> None:
    api = start_api(settings)
    for path in ("/livez", "/readyz", "/openapi.json"):
        assert api.http.get(path).status_code == 200
    refused_everywhere(api)
    for token in (ALICE, ALICES_OTHER):
        assert api.run("say", "x", headers=bearer(token)).content == b"x\n"
    assert api.run("say", "x", headers={"Authorization": f"bearer  {ALICE}"}).status_code == 200
    task = api.submit("say", "x", headers=bearer(ALICE))
    # The header that names an account where nobody is checked counts nothing here.
    hers = api.http.get(f"/v1/tasks/{task['id']}", headers={**bearer(ALICES_OTHER), "X-Account": "bob-x"})
    assert hers.status_code == 200
    his = api.http.get(f"/v1/tasks/{task['id']}", headers=bearer(BOB))
    problem(his, 404, "task-unknown")
    assert problem(api.run("sink", body=b"x" * ((1 << 20) + 1), headers=bearer(BOB)), 413, "input-too-large")
    assert api.run("sink", body=b"x" * ((1 << 20) + 1), headers=bearer(ALICE)).status_code == 200


def refused_everywhere(api: Api) -> None:
    wrong: tuple[dict[str, str], ...] = (
        {},
        {"X-Account": "alice"},
        {"Authorization": ""},
        {"Authorization": ALICE},
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": "Bearer"},
        bearer("gc_alice_wrong"),
        bearer("gc_alice_"),
        bearer(f"gc_bob-x_{ALICE}"),
        bearer("gc_bob-x_2nd"),
        bearer(hashed(ALICE)),
        bearer("gc_nobody_"),
        bearer("gc_nobody_" + "0" * 64),
        bearer("gc_stranger_s3cret"),
        bearer(ALICE + "\u00e9"),
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


@pytest.mark.parametrize(
    ("token", "account"),
    [
        (ALICE, "alice"),
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
