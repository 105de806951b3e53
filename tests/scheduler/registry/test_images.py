"""Images from a scripted registry: tokens, redirects, lies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from scheduler.errors import ImageDenied, ImageUnknown, ImageUnusable, RegistryNotAllowed, Unavailable
from scheduler.registry import client as client_module
from scheduler.registry.documents import MAX_MANIFEST_BYTES
from scheduler.registry.images import FRESH_S, KEPT_S, REFUSAL_KEPT_S, STALE_S
from scheduler.registry.settings import RegistryConfig
from tests.ports import free_port
from tests.scheduler.registries import Answer, Asked, Built, ScriptedRegistry, built, index_of, refused
from tests.scheduler.registry.conftest import Clock, Open, images_of

CAT = built({"Cmd": ["/cat"], "Labels": {"a": "b"}}, b"layer")
DOG = built({"Cmd": ["/dog"]})


def bearer(registry: ScriptedRegistry, realm: str) -> None:
    """Have the registry ask for the token `good` of this realm."""
    challenge = f'Bearer realm="{realm}",service="s",scope="repository:evil:push"'

    def script(asked: Asked) -> Answer | None:
        if asked.path.startswith("/token"):
            return Answer(content=json.dumps({"token": "good", "expires_in": 300}).encode())
        if asked.authorization == "Bearer good":
            return None
        return refused(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)

    registry.script = script


def paths(registry: ScriptedRegistry) -> list[str]:
    return [f"{asked.method} {asked.path}" for asked in registry.asked]


async def test_an_image_is_read_once_and_its_tag_looked_up_when_it_is_no_longer_fresh(
    registry: ScriptedRegistry, opened: Open, clock: Clock
) -> None:
    digest = registry.hold("acme/cat", "1", CAT)
    images = await opened()
    text = f"{registry.host}/acme/cat:1"
    image = await images.resolve(text)
    assert (image.digest, image.cmd, image.reference) == (digest, ("/cat",), text)
    assert image.location == f"{registry.host}/acme/cat@{digest}"
    assert [path.split()[0] for path in paths(registry)] == ["HEAD", "GET", "GET"]
    registry.asked.clear()

    clock.now_s += FRESH_S
    assert (await images.resolve(text)) == image
    assert registry.asked == []

    clock.now_s += STALE_S
    assert (await images.resolve(text)) == image
    assert paths(registry) == ["HEAD /v2/acme/cat/manifests/1"]


async def test_a_name_without_registry_is_looked_up_at_the_own_one(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, opened: Open
) -> None:
    registry.hold("cat", "latest", CAT)
    images = await opened(
        RegistryConfig(name="own.example", url=registry.url),
        RegistryConfig(name="other.example", url=elsewhere.url),
    )
    assert (await images.resolve("cat")).location.startswith("own.example/cat@sha256:")
    assert elsewhere.asked == []


async def test_a_moved_tag_is_seen(registry: ScriptedRegistry, opened: Open, clock: Clock) -> None:
    registry.hold("pet", "1", CAT)
    images = await opened()
    text = f"{registry.host}/pet:1"
    before = await images.resolve(text)
    digest = registry.hold("pet", "1", DOG)
    clock.now_s += STALE_S + 1
    assert (await images.resolve(text)).digest == digest
    by_digest = await images.resolve(f"{registry.host}/pet@{before.digest}")
    assert (by_digest.digest, by_digest.cmd) == (before.digest, ("/cat",))


async def test_nothing_is_contacted_that_is_not_on_the_list(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, opened: Open
) -> None:
    images = await opened()
    port = elsewhere.host.partition(":")[2]
    for host in (elsewhere.host, f"localhost:{port}", f"127.1:{port}", f"[::1]:{port}", f"0.0.0.0:{port}"):
        with pytest.raises(RegistryNotAllowed):
            await images.resolve(f"{host}/acme/cat:1")
    assert elsewhere.asked == []
    assert registry.asked == []


@pytest.mark.parametrize("what", ["manifest", "blob", "realm"])
async def test_a_redirect_or_realm_that_leads_elsewhere_is_not_followed(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, opened: Open, what: str
) -> None:
    registry.hold("cat", "1", CAT)
    elsewhere.hold("cat", "1", CAT)
    if what == "realm":
        bearer(registry, f"{elsewhere.url}/token")
    else:
        part = "/blobs/" if what == "blob" else "/manifests/"
        registry.script = lambda asked: (
            Answer(307, headers={"Location": elsewhere.url + asked.path}) if part in asked.path else None
        )
    images = await opened()
    with pytest.raises(
        Unavailable, match=rf"leads to {elsewhere.url}, which the set may not contact.*`also`"
    ):
        await images.resolve(f"{registry.host}/cat:1")
    assert elsewhere.asked == []


async def test_a_redirect_within_the_list_is_followed_without_our_token(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, opened: Open
) -> None:
    digest = registry.hold("cat", "1", CAT)
    elsewhere.hold("cat", "1", CAT)
    bearer(registry, f"{registry.url}/token")
    inner = registry.script
    registry.script = lambda asked: (
        Answer(307, headers={"Location": elsewhere.url + asked.path})
        if "/blobs/" in asked.path and asked.authorization
        else inner(asked)
    )
    images = await opened(RegistryConfig(name=registry.host, url=registry.url, also=(elsewhere.url,)))
    assert (await images.resolve(f"{registry.host}/cat:1")).digest == digest
    assert [asked.authorization for asked in elsewhere.asked] == [""]


async def test_a_token_is_fetched_once_and_only_for_pulling(registry: ScriptedRegistry, opened: Open) -> None:
    registry.hold("acme/cat", "1", CAT)
    bearer(registry, f"{registry.url}/token")
    images = await opened()
    await images.resolve(f"{registry.host}/acme/cat:1")
    tokens = [asked for asked in registry.asked if asked.path.startswith("/token")]
    assert len(tokens) == 1
    assert "scope=repository%3Aacme%2Fcat%3Apull&" in tokens[0].path
    assert tokens[0].authorization == ""


async def test_a_login_goes_to_the_token_server(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, opened: Open, tmp_path: Path
) -> None:
    registry.hold("cat", "1", CAT)
    bearer(registry, f"{elsewhere.url}/token")
    bearer(elsewhere, "")
    (tmp_path / "password").write_text("s3cret\n")
    config = RegistryConfig(
        name=registry.host,
        url=registry.url,
        also=(elsewhere.url,),
        username="robot",
        password_file=str(tmp_path / "password"),
    )
    images = await opened(config)
    await images.resolve(f"{registry.host}/cat:1")
    assert [asked.authorization for asked in elsewhere.asked] == ["Basic cm9ib3Q6czNjcmV0"]
    assert {asked.authorization for asked in registry.asked} == {"", "Bearer good"}


async def test_basic_authentication(registry: ScriptedRegistry, opened: Open, tmp_path: Path) -> None:
    registry.hold("cat", "1", CAT)
    login = "Basic cm9ib3Q6czNjcmV0"
    registry.script = lambda asked: (
        None
        if asked.authorization == login
        else refused(401, "UNAUTHORIZED", "who are you?", WWW_Authenticate='Basic realm="x"')
    )
    (tmp_path / "password").write_text("s3cret")
    known = RegistryConfig(
        name=registry.host, url=registry.url, username="robot", password_file=str(tmp_path / "password")
    )
    assert (await (await opened(known)).resolve(f"{registry.host}/cat:1")).cmd == ("/cat",)
    with pytest.raises(ImageDenied, match="denies cat to anonymous callers: it asks for a login"):
        await (await opened()).resolve(f"{registry.host}/cat:1")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_denied_image_is_told_with_the_registry_s_words(
    registry: ScriptedRegistry, opened: Open, status: int
) -> None:
    bearer(registry, f"{registry.url}/token")
    inner = registry.script

    def script(asked: Asked) -> Answer | None:
        return inner(asked) if asked.path.startswith("/token") or not asked.authorization else denied

    denied = refused(status, "DENIED", "requested access\nto the resource is denied")
    registry.script = script
    for _ in range(2):
        with pytest.raises(ImageDenied, match=r"denies cat to anonymous callers"):
            await (await opened()).resolve(f"{registry.host}/cat:1")


async def test_an_unknown_image_is_asked_for_again_only_after_a_while(
    registry: ScriptedRegistry, opened: Open, clock: Clock
) -> None:
    images = await opened()
    with pytest.raises(ImageUnknown, match=rf"registry {registry.host} has no such image in nothing"):
        await images.resolve(f"{registry.host}/nothing:1")
    asked = len(registry.asked)
    with pytest.raises(ImageUnknown):
        await images.resolve(f"{registry.host}/nothing:1")
    assert len(registry.asked) == asked
    registry.hold("nothing", "1", CAT)
    clock.now_s += REFUSAL_KEPT_S + 1
    assert (await images.resolve(f"{registry.host}/nothing:1")).cmd == ("/cat",)


@pytest.mark.parametrize("failures_of_head", [0, 1])
async def test_a_tag_that_is_being_written_is_asked_for_again(
    registry: ScriptedRegistry, opened: Open, failures_of_head: int
) -> None:
    registry.hold("cat", "1", CAT)
    failures = [
        refused(500, "UNKNOWN", "unknown error"),
        refused(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        refused(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    ][: 2 + failures_of_head]

    def script(asked: Asked) -> Answer | None:
        if asked.method == "HEAD" and not failures_of_head:
            return Answer(headers={"Docker-Content-Digest": "not told"})
        return failures.pop() if "/manifests/1" in asked.path and failures else None

    registry.script = script
    assert (await (await opened()).resolve(f"{registry.host}/cat:1")).cmd == ("/cat",)
    assert failures == []


async def test_a_registry_that_is_away_is_not_the_caller_s_fault(opened: Open) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    images = await opened(RegistryConfig(name=nobody, url=f"http://{nobody}"))
    with pytest.raises(Unavailable, match=rf"registry {nobody} cannot be used now"):
        await images.resolve(f"{nobody}/x:1")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_registry_in_trouble_is_not_the_caller_s_fault(
    registry: ScriptedRegistry, opened: Open, status: int
) -> None:
    registry.script = lambda asked: Answer(status)
    with pytest.raises(Unavailable, match=f"it answered {status}"):
        await (await opened()).resolve(f"{registry.host}/x:1")


async def test_a_remembered_image_serves_while_its_registry_is_away(
    registry: ScriptedRegistry, opened: Open, clock: Clock
) -> None:
    registry.hold("cat", "1", CAT)
    images = await opened()
    text = f"{registry.host}/cat:1"
    image = await images.resolve(text)
    registry.script = lambda asked: Answer(503)
    clock.now_s += KEPT_S - 1
    assert await images.resolve(text) == image
    clock.now_s += 2
    with pytest.raises(Unavailable):
        await images.resolve(text)


async def test_a_registry_that_stalls_is_given_up(
    registry: ScriptedRegistry, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ASK_S", 0.2)
    registry.hold("cat", "1", CAT)
    registry.script = lambda asked: (
        Answer(content=b"{", announced_bytes=10) if asked.method == "GET" else None
    )
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable, match="cannot be used now"):
            await (await opened()).resolve(f"{registry.host}/cat:1")


@pytest.mark.parametrize("part", ["/manifests/sha256", "/blobs/"])
async def test_content_of_another_digest_is_not_taken(
    registry: ScriptedRegistry, opened: Open, part: str
) -> None:
    registry.hold("cat", "1", CAT)
    registry.script = lambda asked: Answer(content=DOG.manifest) if part in asked.path else None
    with pytest.raises(Unavailable, match="is not the content of its digest"):
        await (await opened()).resolve(f"{registry.host}/cat:1")


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
async def test_an_endless_answer_is_cut(registry: ScriptedRegistry, opened: Open, part: str) -> None:
    registry.hold("cat", "1", CAT)
    registry.script = lambda asked: (
        Answer(content=b"x" * (MAX_MANIFEST_BYTES + 1))
        if part in asked.path and asked.method == "GET"
        else None
    )
    with pytest.raises(ImageUnusable, match=r"has more than \d+ bytes"):
        await (await opened()).resolve(f"{registry.host}/cat:1")


async def test_a_redirect_in_a_circle_ends(registry: ScriptedRegistry, opened: Open) -> None:
    registry.script = lambda asked: Answer(302, headers={"Location": asked.path})
    with pytest.raises(Unavailable, match="redirects too often"):
        await (await opened()).resolve(f"{registry.host}/cat:1")


async def test_an_index_leads_to_the_image_of_these_nodes(registry: ScriptedRegistry, opened: Open) -> None:
    for held in (CAT, DOG):
        registry.hold("pet", "held", held)
    digest = registry.hold("pet", "1", index_of(arm64=DOG, amd64=CAT))
    image = await (await opened()).resolve(f"{registry.host}/pet:1")
    assert (image.cmd, image.digest) == (("/cat",), digest)
    assert image.image_id == json.loads(CAT.manifest)["config"]["digest"]


async def test_an_index_within_an_index_is_refused(registry: ScriptedRegistry, opened: Open) -> None:
    inner = index_of(amd64=CAT)
    registry.hold("pet", "inner", inner)
    registry.hold("pet", "1", index_of(amd64=Built(inner.manifest, {})))
    with pytest.raises(ImageUnusable, match="its index lies within an index"):
        await (await opened()).resolve(f"{registry.host}/pet:1")


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (built({"Cmd": "cat"}), "broken at Cmd"),
        (built(["x"]), "broken at Config"),
        (built({}, architecture="arm64"), "built for arm64"),
        (built({}, os="windows"), "an image for windows"),
        (built({"Env": ["A=" + "x" * 300_000]}), "more than 256 KiB"),
    ],
)
async def test_an_unusable_image_says_why(
    registry: ScriptedRegistry, opened: Open, image: Built, why: str
) -> None:
    registry.hold("x", "1", image)
    with pytest.raises(ImageUnusable, match=why):
        await (await opened()).resolve(f"{registry.host}/x:1")


async def test_all_who_ask_share_one_look_up(registry: ScriptedRegistry, opened: Open) -> None:
    registry.hold("cat", "1", CAT)
    images = await opened()
    found = await asyncio.gather(*(images.resolve(f"{registry.host}/cat:1") for _ in range(50)))
    assert len({image.digest for image in found}) == 1
    assert len(registry.asked) == 3


async def test_a_proxy_of_the_environment_is_not_used(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere.url)
    registry.hold("cat", "1", CAT)
    async with images_of(RegistryConfig(name=registry.host, url=registry.url)) as images:
        assert (await images.resolve(f"{registry.host}/cat:1")).cmd == ("/cat",)
    assert elsewhere.asked == []
