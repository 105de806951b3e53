"""Who may talk with the admin address."""

from __future__ import annotations

from pathlib import Path

import falcon
import falcon.asgi
import falcon.testing
import pytest

from router.admin.access import Access, AdminExposed, BadToken, check_bind, read_token

TOKEN = "0123456789abcdef0123"


class Anything:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {}

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {}


def client(token: str | None) -> falcon.testing.TestClient:
    app = falcon.asgi.App(middleware=[Access(token)])
    for path in ("/status", "/livez", "/readyz"):
        app.add_route(path, Anything())
    return falcon.testing.TestClient(app)


@pytest.mark.parametrize("bind", ["127.0.0.1:8081", "localhost:8081", "[::1]:8081", "127.9.9.9:1"])
def test_on_this_machine_no_token_is_needed(bind: str) -> None:
    check_bind(bind, None)


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:8081", "[::]:8081", "10.0.0.1:8081", ":8081", "router.example:8081"]
)
def test_elsewhere_it_is(bind: str) -> None:
    with pytest.raises(AdminExposed, match="--admin-token-file"):
        check_bind(bind, None)
    check_bind(bind, TOKEN)


def test_a_token_is_read_without_the_space_around_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN


@pytest.mark.parametrize("text", ["", "short", "with space in between it", "zeichen-über-ascii-hinaus", "\n"])
def test_a_bad_token_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(BadToken, match="openssl rand"):
        read_token(file)


def test_a_token_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadToken, match="No such file"):
        read_token(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    with pytest.raises(BadToken, match="no text"):
        read_token(tmp_path / "binary")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer é", 401),
    ],
)
def test_with_a_token_everybody_needs_it_also_from_here(given: str | None, status: int) -> None:
    headers = {} if given is None else {"Authorization": given}
    answer = client(TOKEN).simulate_get("/status", host="127.0.0.1", headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_balancer_needs_none(path: str) -> None:
    assert client(TOKEN).simulate_get(path).status_code == 200
    assert client(None).simulate_get(path, host="anything").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
    ],
)
def test_a_foreign_name_that_leads_here_is_refused(host: str, status: int) -> None:
    """A page in a browser may have its own name resolved to 127.0.0.1."""
    for port in (80, 8081):
        assert client(None).simulate_get("/status", host=host, port=port).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8081"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
    ],
)
def test_a_foreign_page_cannot_give_orders(headers: dict[str, str], status: int) -> None:
    answer = client(None).simulate_post("/status", host="localhost", port=8081, headers=headers, json={})
    assert answer.status_code == status


def test_a_form_cannot_give_orders() -> None:
    headers = {"Content-Type": "text/plain"}
    answer = client(None).simulate_post("/status", host="localhost", headers=headers, body='{"by": "x"}')
    assert answer.status_code == 415
