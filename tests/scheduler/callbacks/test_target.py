"""Addresses of callbacks: which are accepted, and what is said of the others."""

from __future__ import annotations

import re

import pytest

from scheduler.callbacks.target import URL_CHARS, Target, parse


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com/hook", Target("https", "example.com", 443, "/hook")),
        ("http://example.com", Target("http", "example.com", 80, "/")),
        ("HTTPS://Example.COM:8443/a/b?c=d&e=%20", Target("https", "example.com", 8443, "/a/b?c=d&e=%20")),
        ("https://hooks.xn--bcher-kva.example?x", Target("https", "hooks.xn--bcher-kva.example", 443, "/?x")),
        ("http://192.0.2.7:1024/", Target("http", "192.0.2.7", 1024, "/")),
        ("http://[2001:DB8::1]:80/x", Target("http", "2001:db8::1", 80, "/x")),
        ("http://under_score.internal./", Target("http", "under_score.internal.", 80, "/")),
    ],
)
def test_a_url_is_taken_apart(url: str, target: Target) -> None:
    assert parse(url) == target


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must begin with https:// or http://"),
        ("example.com/hook", "must begin with"),
        ("ftp://example.com/", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("gopher://example.com:70/", "must begin with"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://example.com@evil.example/", "user name"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https:///hook", "'' is not the name"),
        ("https://exa mple.com/", "character"),
        ("https://example.com/\r\nHost: other", "character"),
        ("https://example.com\\@evil.example/", "character"),
        ("https://bücher.example/", "xn--"),
        ("https://-example.com/", "not the name"),
        ("https://example..com/", "not the name"),
        ("https://[::1/", "not a URL"),
        ("https://[fe80::1%25eth0]/", "not the name"),
        ("https://[127.0.0.1]/", "not"),
        ("https://example.com:99999/", "not a URL"),
        ("https://example.com:x/", "not a URL"),
        ("https://example.com:0/", "port 0 is not allowed"),
        ("http://example.com:25/", "port 25 is not allowed; use 80, 443 or one from 1024 on"),
        ("http://" + "a" * 64 + ".example/", "not the name"),
        ("https://example.com/" + "a" * URL_CHARS, f"{URL_CHARS + 20} characters"),
    ],
)
def test_another_is_refused_with_the_reason(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(url)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.com/a?token=secret", "https://example.com:443"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_its_origin_tells_nothing_of_path_and_query(url: str, origin: str) -> None:
    assert parse(url).origin == origin


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://example.com/a", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("http://[::1]/", "[::1]"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ],
)
def test_its_authority_names_a_port_that_is_not_the_schemes_own(url: str, authority: str) -> None:
    assert parse(url).authority == authority
