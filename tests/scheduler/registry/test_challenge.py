"""Challenges and tokens as registries send them, and as nobody should."""

from __future__ import annotations

import json

import pytest

from scheduler.registry.challenge import (
    MAX_TOKEN_CHARS,
    MAX_TOKEN_S,
    Challenge,
    parse_challenge,
    parse_token,
    token_url,
)

HUB = 'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"'


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([HUB], Challenge(True, "https://auth.example/token", "registry.example")),
        (['bearer Realm="https://a.example/t"'], Challenge(True, "https://a.example/t")),
        (
            ['Bearer realm=https://a.example/t, service="x, y"'],
            Challenge(True, "https://a.example/t", "x, y"),
        ),
        (['Basic realm="x"'], Challenge(False)),
        (['Basic realm="x"', HUB], Challenge(True, "https://auth.example/token", "registry.example")),
        (["Bearer"], None),
        (['Bearer realm=""'], None),
        (["Bearer realm="], None),
        (['Bearer realm="https://a.example'], Challenge(True, '"https://a.example')),
        (["Negotiate"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_challenge_that_can_be_met_is_found(headers: list[str], expected: Challenge | None) -> None:
    assert parse_challenge(headers) == expected


def test_a_token_is_asked_for_pulling_alone() -> None:
    challenge = Challenge(True, "", "registry.example")
    assert token_url("https://a.example/t?x=1", challenge, "a/b", "robot") == (
        "https://a.example/t?x=1&service=registry.example&scope=repository%3Aa%2Fb%3Apull"
        "&client_id=general-compute&account=robot"
    )
    assert token_url("https://a.example/t", Challenge(True), "a", "").startswith("https://a.example/t?scope=")


@pytest.mark.parametrize(
    ("answer", "text", "lifetime_s"),
    [
        ({"token": "abc"}, "abc", 60),
        ({"access_token": "abc", "expires_in": 300}, "abc", 300),
        ({"token": "abc", "expires_in": 1}, "abc", 60),
        ({"token": "abc", "expires_in": 10**12}, "abc", MAX_TOKEN_S),
        ({"token": "abc", "expires_in": "soon"}, "abc", 60),
    ],
)
def test_a_token_is_read(answer: object, text: str, lifetime_s: float) -> None:
    token = parse_token(json.dumps(answer).encode())
    assert token is not None
    assert (token.text, token.lifetime_s) == (text, lifetime_s)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"[]",
        b"{}",
        b'{"token": 1}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b'{"token": "\xc3\xa9"}',
        json.dumps({"token": "a" * (MAX_TOKEN_CHARS + 1)}).encode(),
        b"[" * 100_000,
    ],
)
def test_what_cannot_be_sent_is_no_token(content: bytes) -> None:
    assert parse_token(content) is None
