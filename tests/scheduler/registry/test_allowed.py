"""Only what an operator listed may be contacted, whatever a reference, a redirect or a token realm says."""

from __future__ import annotations

import pytest

from scheduler.errors import RegistryNotAllowed, Unavailable
from scheduler.images.reference import parse_reference
from scheduler.registry.allowed import AllowList, origin_of
from scheduler.registry.settings import RegistryConfig

OWN = RegistryConfig(name="registry.example", also=("https://auth.example", "http://10.0.0.7:9000"))
OTHER = RegistryConfig(name="other.example:5000", url="http://127.0.0.1:5000")
HUB = RegistryConfig(name="docker.io", url="https://registry-1.docker.io")
ALLOWED = AllowList([OWN, OTHER, HUB])


@pytest.mark.parametrize(
    ("text", "url", "repository"),
    [
        ("cat:1", "https://registry.example", "cat"),
        ("acme/cat", "https://registry.example", "acme/cat"),
        ("registry.example/acme/cat", "https://registry.example", "acme/cat"),
        ("registry.example:443/cat", "https://registry.example", "cat"),
        ("Registry.Example/cat", "https://registry.example", "cat"),
        ("other.example:5000/a/b/c:2", "http://127.0.0.1:5000", "a/b/c"),
        ("docker.io/busybox", "https://registry-1.docker.io", "library/busybox"),
        ("index.docker.io/acme/cat", "https://registry-1.docker.io", "acme/cat"),
    ],
)
def test_a_reference_means_one_registry_of_the_list(text: str, url: str, repository: str) -> None:
    reference = parse_reference(text)
    registry = ALLOWED.registry(reference)
    assert (registry.url, registry.repository(reference)) == (url, repository)


@pytest.mark.parametrize(
    "domain",
    [
        "169.254.169.254",
        "127.1:80",
        "127.0.0.1:5000",
        "0.0.0.0:5000",
        "[::1]",
        "[::ffff:7f00:1]:5000",
        "localhost",
        "2130706433.example",
        "metadata.google.internal",
        "other.example",
        "other.example:443",
        "registry.example:5000",
        "registry.example.evil.example",
        "evil-registry.example",
        "ghcr.io",
    ],
)
def test_any_other_is_refused_with_the_setting(domain: str) -> None:
    with pytest.raises(RegistryNotAllowed, match=r"is not in the set's setting `registries`"):
        ALLOWED.registry(parse_reference(f"{domain}/x:1"))


def test_without_registries_nothing_is_allowed() -> None:
    for text in ("cat:1", "docker.io/cat", "registry.example/cat"):
        with pytest.raises(RegistryNotAllowed, match="setting `registries`"):
            AllowList([]).registry(parse_reference(text))


def test_a_registry_that_appears_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"registry Registry\.example:443 appears twice"):
        AllowList([OWN, RegistryConfig(name="Registry.example:443")])


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/v2/x/blobs/sha256:1", "https://registry.example/v2/x/blobs/sha256:1"),
        ("https://registry.example:443/y", "https://registry.example:443/y"),
        ("https://AUTH.example/token", "https://AUTH.example/token"),
        ("http://10.0.0.7:9000/bucket?sign=a%2Fb", "http://10.0.0.7:9000/bucket?sign=a%2Fb"),
    ],
)
def test_a_redirect_is_followed_within_the_list(location: str, leads_to: str) -> None:
    registry = ALLOWED.registry(parse_reference("registry.example/x"))
    assert registry.follow("https://registry.example/v2/", location) == leads_to


@pytest.mark.parametrize(
    "location",
    [
        "http://registry.example/y",
        "https://registry.example:444/y",
        "https://registry.example@169.254.169.254/y",
        "https://169.254.169.254/latest/meta-data",
        "//169.254.169.254/y",
        "http://10.0.0.7/y",
        "http://10.0.0.7:9001/y",
        "http://[::1]:9000/",
        "https://registry.example\\@evil.example/",
        "https://registry.example:99999/",
        "https://registry.example:x/",
        "file:///etc/passwd",
        "gopher://registry.example/",
        "https://other.example:5000/",
    ],
)
def test_it_is_not_followed_anywhere_else(location: str) -> None:
    registry = ALLOWED.registry(parse_reference("registry.example/x"))
    with pytest.raises(Unavailable, match=r"registry registry\.example leads to"):
        registry.follow("https://registry.example/v2/", location)


def test_an_origin_has_one_spelling() -> None:
    assert origin_of("https://A.example/x") == origin_of("https://a.example:443?y") == "https://a.example:443"
    assert origin_of("http://[::1]/") == "http://[::1]:80"
