"""A rollout's calls to the outside: gates and the event webhook. Bounded in time and size; never on the way of
a request."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from router.backoff import Backoff

TIMEOUT_S: Final = 10.0
TELL_ATTEMPTS: Final = 3
_TELL_AGAIN: Final = Backoff(2.0, 4.0)
log = structlog.get_logger()


async def ask_gate(url: str, body: dict[str, Any]) -> tuple[bool, str]:
    """POST `body` as JSON: any 2xx means go. Everything else, silence included, means not now, with the reason."""
    status, said = await _post(url, body)
    return 200 <= status < 300, said


async def tell(url: str, body: dict[str, Any]) -> bool:
    """POST an event; tried three times with growing pauses. False: nobody took it."""
    for attempt in range(TELL_ATTEMPTS):
        if attempt:
            await asyncio.sleep(_TELL_AGAIN.after(attempt))
        status, said = await _post(url, body)
        if 200 <= status < 300:
            return True
    log.warning("webhook did not take an event", serial=body.get("serial"), url=url, reason=said)
    return False


async def _post(url: str, body: dict[str, Any]) -> tuple[int, str]:
    """Return the status (0: no answer) and a few words about it. Redirects are not followed, proxies not used."""
    # Only a leader with gates or a webhook needs it: it costs every worker 10 MiB otherwise.
    import httpx

    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client,
            client.stream("POST", url, json=body) as answer,
        ):
            return answer.status_code, f"it answered {answer.status_code}"
    except TimeoutError:
        return 0, f"no answer within {TIMEOUT_S:g} s"
    except (httpx.HTTPError, OSError, ValueError) as error:
        return 0, f"no answer: {str(error) or type(error).__name__}"
