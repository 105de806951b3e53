"""One question to a service registry by HTTP, bounded in time and size."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import httpx

from router.discovery.instances import (
    MAX_ANSWER_BYTES,
    WAIT_S,
    AnswerBroken,
    Instance,
    instances,
    next_index,
    question,
    token_header,
)
from router.routing.discovery import Discovery

CONNECT_S: Final = 5.0
ANSWER_S: Final = WAIT_S * 17 / 16 + 10.0
"""Limit of one question, in seconds. Registries add up to a sixteenth to the wait."""
MAX_TOKEN_BYTES: Final = 4096

ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    TimeoutError,
    AnswerBroken,
)
"""The errors of `ask` and `client_of` for a registry that is away, wrong or not set up well."""


def client_of(discovery: Discovery) -> httpx.AsyncClient:
    """A client for the registry's address alone: it follows no redirects and uses no proxies of the environment."""
    return httpx.AsyncClient(
        # Loading the certificates takes tens of milliseconds, so it is left out where there is no TLS.
        verify=discovery.url.startswith("https:") and ssl.create_default_context(cafile=discovery.ca_file),
        trust_env=False,
        timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        headers={"user-agent": "general-compute-router", "accept-encoding": "identity"},
    )


async def ask(
    client: httpx.AsyncClient, discovery: Discovery, service: str, index: int
) -> tuple[tuple[Instance, ...], int]:
    """The instances of a service, and the index to ask with next."""
    headers = {}
    if discovery.token_file is not None:
        headers[token_header(discovery)] = _token(discovery.token_file)
    content = bytearray()
    async with (
        asyncio.timeout(ANSWER_S),
        client.stream("GET", question(discovery, service, index), headers=headers) as answer,
    ):
        if answer.status_code != 200:
            raise AnswerBroken(f"it answered {answer.status_code}")
        async for chunk in answer.aiter_raw():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise AnswerBroken(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
    return instances(discovery, bytes(content)), next_index(discovery, answer.headers, index)


def _token(path: str) -> str:
    """The token as its file has it now, so that it can be replaced at any time."""
    with Path(path).open("rb") as file:
        text = file.read(MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
    if not text.isprintable() or not text.isascii():
        raise AnswerBroken(f"{path} holds no token")
    return text
