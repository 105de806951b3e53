"""Asks one registry by HTTP: tokens, redirects within the allow list, bounded sizes and times, verified digests."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from scheduler.errors import ImageDenied, ImageUnknown, ImageUnusable, Unavailable
from scheduler.registry.allowed import Registry, origin_of
from scheduler.registry.challenge import (
    MAX_TOKEN_ANSWER_BYTES,
    Token,
    parse_challenge,
    parse_token,
    token_url,
)
from scheduler.registry.documents import ACCEPT, MAX_MANIFEST_BYTES, digest_of, is_digest

CONNECT_S: Final = 5.0
SILENCE_S: Final = 10.0
"""Longest silence of a registry within an answer, in seconds."""
ASK_S: Final = 20.0
"""Limit of one question with all its redirects and tokens, in seconds."""
CHUNK_BYTES: Final = 128 << 10
"""Layers are handed on in pieces of this size: each costs the event loop a turn."""
MAX_CONNECTIONS: Final = 16
MAX_REDIRECTS: Final = 5
TRIES: Final = 3
"""Times that a manifest is asked for. While a tag is being written, a registry may answer 404 or 500."""
TRY_AGAIN_S: Final = 0.05

_MAX_TOKENS: Final = 1024
_TOKEN_MARGIN_S: Final = 10.0
"""A token that ends within this time is not used for a new request, in seconds."""
_MAX_ERROR_BYTES: Final = 16 << 10
_MAX_SAID_CHARS: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HTTP_ERRORS: Final = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)
_AUTHORIZATION: Final = "authorization"


class _Faulty(Unavailable):
    """The registry answered with an error of its own, as it may do while a tag is being written."""


class RegistryClient:
    """One registry, as a set may ask it. All methods belong to one event loop.

    They raise `ImageUnknown` for what the registry does not have, `ImageDenied` for what it does not let us have, and
    `Unavailable` if it does not answer in time, answers nonsense, or leads to an address that is not allowed.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._origin = origin_of(registry.url)
        self._tokens: OrderedDict[str, tuple[Token, float]] = OrderedDict()
        self._basic = False
        """True once the registry has asked for HTTP Basic."""
        # Proxies and logins in the environment or in .netrc are not for strangers' references.
        self._http = httpx.AsyncClient(
            verify=_trust(registry),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=4, keepalive_expiry=30.0
            ),
            headers={"accept-encoding": "identity", "user-agent": "general-compute"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def digest(self, repository: str, tag: str) -> str:
        """The digest that the tag has now; "" if the registry does not tell it in advance: `manifest` then may."""
        try:
            async with self._asked("HEAD", f"/v2/{repository}/manifests/{tag}", repository, ACCEPT) as answer:
                told = answer.headers.get("docker-content-digest", "")
                return told if is_digest(told) else ""
        except ImageDenied:
            raise
        except (ImageUnknown, _Faulty):
            return ""

    async def manifest(self, repository: str, tag_or_digest: str) -> tuple[str, bytes]:
        """A manifest or index: its digest and its bytes, which have that digest. Raises `ImageUnusable` as well."""
        path = f"/v2/{repository}/manifests/{tag_or_digest}"
        for tries_left in reversed(range(TRIES)):
            try:
                content = await self._content(path, repository, ACCEPT, MAX_MANIFEST_BYTES)
                break
            except ImageDenied:
                raise
            except (ImageUnknown, _Faulty):
                if not tries_left or is_digest(tag_or_digest):
                    raise
                await asyncio.sleep(TRY_AGAIN_S)
        digest = digest_of(content)
        if is_digest(tag_or_digest) and digest != tag_or_digest:
            raise self._wrong_content(path)
        return digest, content

    async def blob(self, repository: str, digest: str, most_bytes: int) -> bytes:
        """A small blob, whose bytes have the digest. Raises `ImageUnusable` if it is larger than `most_bytes`."""
        path = f"/v2/{repository}/blobs/{digest}"
        content = await self._content(path, repository, "*/*", most_bytes)
        if digest_of(content) != digest:
            raise self._wrong_content(path)
        return content

    async def blob_chunks(self, repository: str, digest: str) -> AsyncGenerator[bytes, None]:
        """A blob's bytes as they come. At its end `Unavailable` is raised if they do not have the digest."""
        path = f"/v2/{repository}/blobs/{digest}"
        seen = hashlib.sha256()
        async with self._asked("GET", path, repository, "*/*") as answer:
            async for chunk in answer.aiter_raw(CHUNK_BYTES):
                seen.update(chunk)
                yield chunk
        if f"sha256:{seen.hexdigest()}" != digest:
            raise self._wrong_content(path)

    async def _content(self, path: str, repository: str, accept: str, most_bytes: int) -> bytes:
        try:
            async with asyncio.timeout(ASK_S), self._asked("GET", path, repository, accept) as answer:
                content = await _read(answer, most_bytes)
        except TimeoutError as error:
            raise self._away(f"its answer took longer than {ASK_S:g} s") from error
        if content is None:
            raise ImageUnusable(f"registry {self.registry.name}: {path} has more than {most_bytes} bytes")
        return content

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, repository: str, accept: str
    ) -> AsyncIterator[httpx.Response]:
        """The registry's answer, of status 200, with its body still to come."""
        try:
            async with asyncio.timeout(ASK_S):
                answer = await self._answer(method, path, repository, accept)
        except TimeoutError as error:
            raise self._away(f"no answer within {ASK_S:g} s") from error
        except _HTTP_ERRORS as error:
            raise self._away(_words(error)) from error
        try:
            yield answer
        except _HTTP_ERRORS as error:
            raise self._away(_words(error)) from error
        finally:
            await answer.aclose()

    async def _answer(self, method: str, path: str, repository: str, accept: str) -> httpx.Response:
        url = self.registry.url + quote(path, safe="/:@")
        answer = await self._send(method, url, accept, self._authorization(repository))
        if answer.status_code == 401:
            headers = answer.headers.get_list("www-authenticate")
            await answer.aclose()
            authorization = await self._authorize(headers, repository)
            answer = await self._send(method, url, accept, authorization)
        if answer.status_code == 200:
            return answer
        try:
            said = _said(await _read(answer, _MAX_ERROR_BYTES))
        finally:
            await answer.aclose()
        raise self._refusal(answer.status_code, repository, said)

    async def _send(self, method: str, url: str, accept: str, authorization: str) -> httpx.Response:
        """Follows redirects, each held to the allow list. Only the registry itself is told who asks."""
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"accept": accept}
            if authorization and origin_of(url) == self._origin:
                headers[_AUTHORIZATION] = authorization
            answer = await self._http.send(
                self._http.build_request(method, url, headers=headers), stream=True
            )
            location = answer.headers.get("location", "")
            if answer.status_code not in _REDIRECTS or not location:
                return answer
            await answer.aclose()
            url = self.registry.follow(url, location)
        raise self._away("it redirects too often")

    # Logging in

    def _authorization(self, repository: str) -> str:
        if self._basic:
            return self._login()
        token, ends_at = self._tokens.get(repository, (None, 0.0))
        return f"Bearer {token.text}" if token is not None and time.monotonic() < ends_at else ""

    def _login(self) -> str:
        config = self.registry.config
        try:
            pair = f"{config.username}:{config.password()}"
        except ValueError as error:
            raise self._away(str(error)) from error
        return "Basic " + base64.b64encode(pair.encode()).decode()

    async def _authorize(self, headers: list[str], repository: str) -> str:
        self._tokens.pop(repository, None)
        username = self.registry.config.username
        challenge = parse_challenge(headers)
        if challenge is None or (not challenge.bearer and not username):
            raise self._denied(repository, "it asks for a login that the set does not have")
        if not challenge.bearer:
            self._basic = True
            return self._login()
        realm = self.registry.follow(self.registry.url, challenge.realm)
        url = token_url(realm, challenge, repository, username)
        answer = await self._token_answer(url, self._login() if username else "")
        try:
            content = await _read(answer, MAX_TOKEN_ANSWER_BYTES)
        finally:
            await answer.aclose()
        if answer.status_code in (401, 403):
            raise self._denied(repository, _said(content))
        token = parse_token(content or b"") if answer.status_code == 200 else None
        if token is None:
            raise self._away(f"its token server answers {answer.status_code} without a token")
        self._tokens[repository] = token, time.monotonic() + token.lifetime_s - _TOKEN_MARGIN_S
        while len(self._tokens) > _MAX_TOKENS:
            self._tokens.popitem(last=False)
        return f"Bearer {token.text}"

    async def _token_answer(self, url: str, login: str) -> httpx.Response:
        """A token server's answer. The login goes to the realm alone, and to no address that the realm leads to."""
        headers = {_AUTHORIZATION: login} if login else {}
        return await self._http.send(self._http.build_request("GET", url, headers=headers), stream=True)

    # Errors

    def _refusal(self, status: int, repository: str, said: str) -> ImageUnknown | Unavailable:
        if status in (401, 403):
            return self._denied(repository, said)
        if status in (400, 404):
            return ImageUnknown(
                f"registry {self.registry.name} has no such image in {repository}{_after(said)}"
            )
        if status >= 500:
            return _Faulty(self._words_away(f"it answered {status}{_after(said)}"), retry_after_s=5.0)
        return self._away(f"it answered {status}{_after(said)}")

    def _denied(self, repository: str, said: str) -> ImageDenied:
        who = (
            f"user {self.registry.config.username}" if self.registry.config.username else "anonymous callers"
        )
        return ImageDenied(f"registry {self.registry.name} denies {repository} to {who}{_after(said)}")

    def _away(self, why: str) -> Unavailable:
        return Unavailable(self._words_away(why), retry_after_s=5.0)

    def _words_away(self, why: str) -> str:
        return f"registry {self.registry.name} cannot be used now: {why}"

    def _wrong_content(self, path: str) -> Unavailable:
        return self._away(f"{path} is not the content of its digest")


def _trust(registry: Registry) -> ssl.SSLContext | bool:
    """The certificates to trust. Loading them takes tens of milliseconds: it is left out where there is no TLS."""
    if not any(origin.startswith("https:") for origin in registry.reachable):
        return False
    return ssl.create_default_context(cafile=registry.config.ca_file)


async def _read(answer: httpx.Response, most_bytes: int) -> bytes | None:
    """The body; None if it has more than `most_bytes`."""
    received = bytearray()
    async for chunk in answer.aiter_raw():
        received += chunk
        if len(received) > most_bytes:
            return None
    return bytes(received)


def _said(content: bytes | None) -> str:
    """The first message of a registry's error, short and in one line; "" if there is none."""
    try:
        document = msgspec.json.decode(content or b"")
        error = document["errors"][0]
        text = str(error.get("message") or error.get("code") or "")
    except (msgspec.DecodeError, RecursionError, LookupError, TypeError, AttributeError):
        return ""
    return "".join(character for character in text if character.isprintable())[:_MAX_SAID_CHARS]


def _after(said: str) -> str:
    return f": {said}" if said else ""


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
