"""The scope `operator`: who may see the state of the whole set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from scheduler.accounts.account import Account, Token
from scheduler.accounts.book import Book, hash_of, token_id_of
from scheduler.policy.rates import Rates
from sets.api.accounts import Accounts
from sets.api.errors import CallError, Forbidden
from sets.api.native.callers import Callers
from sets.api.native.operators import Operators
from sets.config import OperatorConfig, SetConfig
from tests.sets.api.conftest import Api, StartApi, problem
from tests.sets.api.people import People, bearer

OPERATOR = "gc_router_s3cret"
ALICE = "gc_alice_0123456789abcdef"
GUARDED = (
    "/metrics",
    *(f"/v1/admin/{what}" for what in ("nodes", "pools", "queue", "tasks")),
    "/v1/admin",
    "/v1/%61dmin/x",
)


@pytest.mark.docker
def test_with_authentication_an_operators_token_is_needed(start_api: StartApi, tmp_path: Path) -> None:
    people = People(tmp_path)
    people.add("alice")
    alice = people.token("alice").token
    api = start_api(f"{people.settings}operators: {{router: {{token_hashes: [{hash_of(OPERATOR)}]}}}}\n")
    for path in GUARDED:
        for headers in ({}, bearer("gc_router_wrong"), {"X-Account": "router"}):
            answer = api.http.get(path, headers=headers)
            assert problem(answer, 401, "unauthorized")["executed"] is False
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        found = problem(api.http.get(path, headers=bearer(alice)), 403, "forbidden")
        assert "gcompute token operator" in found["detail"]
    assert "gc_cores 2.0" in api.http.get("/metrics", headers=bearer(OPERATOR)).text
    problem(api.http.get("/v1/admin/nothing-here", headers=bearer(OPERATOR)), 404, "not-found")
    # Whether it is ready is everybody's to know; what it holds is not.
    assert set(api.http.get("/readyz").json()) == {"status", "set", "build"}
    assert set(api.http.get("/readyz", headers=bearer(alice)).json()) == {"status", "set", "build"}
    assert api.http.get("/readyz", headers=bearer(OPERATOR)).json()["cores"] == 2
    # An operator is no account.
    for method, path in (("POST", api.target("say", "x")), ("GET", "/v1/tasks")):
        refused = api.http.request(method, path, headers=bearer(OPERATOR))
        assert "no account" in problem(refused, 403, "forbidden")["detail"]


@pytest.mark.docker
def test_without_authentication_a_proxy_is_not_this_machine(api: Api) -> None:
    assert api.http.get("/metrics").status_code == 200
    for header in ("X-Forwarded-For", "Forwarded", "Via"):
        for path in GUARDED:
            problem(api.http.get(path, headers={header: "127.0.0.1"}), 403, "forbidden")
        assert "cores" not in api.http.get("/readyz", headers={header: "127.0.0.1"}).json()


def admitted(client: Any, **config: Any) -> bool:
    accounts = Accounts(SetConfig(name="a", state_dir="x", **config))
    operators = Operators(accounts, Callers(accounts, Rates(None)))
    req = falcon.testing.create_asgi_req(path="/metrics")
    req.scope["client"] = client
    may = operators.admits(req)
    if may:
        operators.check(req)
    else:
        with pytest.raises(CallError):
            operators.check(req)
    return may


@pytest.mark.parametrize(
    ("client", "may"),
    [
        (("127.0.0.1", 5), True),
        (("127.8.9.1", 5), True),
        (("::1", 5), True),
        (("::ffff:127.0.0.1", 5), True),
        (("10.0.0.7", 5), False),
        (("0.0.0.0", 5), False),
        (("::ffff:10.0.0.7", 5), False),
        (("fe80::1%eth0", 5), False),
        (("127.0.0.1.evil", 5), False),
        (None, False),
    ],
)
def test_without_authentication_this_machine_alone_is_answered(client: Any, may: bool) -> None:
    assert admitted(client) == may


def test_with_authentication_it_does_not_matter_where_a_request_is_from() -> None:
    operators = {"router": OperatorConfig((hash_of(OPERATOR),))}
    assert not admitted(("127.0.0.1", 5), authentication=True, operators=operators)


@pytest.mark.parametrize(
    ("token", "reads", "orders"),
    [(OPERATOR, True, False), ("gc_ops_s3cret", True, True), (ALICE, False, False)],
)
def test_only_an_operator_who_may_order_changes_the_set(token: str, reads: bool, orders: bool) -> None:
    """The tokens of routers and of Prometheus lie on other machines; they need not be able to drain a set."""
    tokens = {token_id_of(ALICE): Token(hash_of(ALICE), 1)}
    book = Book(accounts={"alice": Account(1, tokens=tokens)})
    accounts = Accounts(
        SetConfig(
            name="a",
            state_dir="x",
            authentication=True,
            operators={
                "router": OperatorConfig((hash_of(OPERATOR),)),
                "ops": OperatorConfig((hash_of("gc_ops_s3cret"),), may_order=True),
            },
        ),
        lambda: book,
    )
    operators = Operators(accounts, Callers(accounts, Rates(None)))
    req = falcon.testing.create_asgi_req(path="/v1/admin/drain", headers=bearer(token))
    assert operators.admits(req) == reads
    if orders:
        operators.check_order(req)
    else:
        with pytest.raises(Forbidden, match="may_order: true" if reads else "no scope `operator`"):
            operators.check_order(req)
