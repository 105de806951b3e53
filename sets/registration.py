"""Registers a set with a Consul agent while it runs, so that routers find its address."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from consul import Check, Consul, ConsulException
from requests import RequestException

from scheduler.backoff import Backoff
from scheduler.trouble import Trouble
from sets.config import RegistrationConfig, SetConfig, address_of

CALL_S: Final = 5.0
"""Limit of one call of the agent, in seconds."""
LOOK_S: Final = 15.0
"""Time between two looks at whether the agent still has the set, in seconds: an agent may lose its folder."""
RETRY: Final = Backoff(1.0, 30.0)
"""Pauses after calls that failed."""
CHECK_EVERY: Final = "5s"
CHECK_TIMEOUT: Final = "3s"
FORGET_AFTER: Final = "72h"
"""Time after which the agent forgets a set whose checks fail: a set that was killed does not say goodbye."""

_TAG: Final = "general-compute"
_ERRORS: Final = (ConsulException, RequestException, OSError, ValueError)

log = structlog.get_logger()


class Registration:
    """Keeps one set registered from `open` to `close`.

    An agent that is away keeps no set from starting or stopping.
    """

    def __init__(self, config: SetConfig, registration: RegistrationConfig, build: str) -> None:
        self._registration = registration
        self._host, self._port = address_of(registration.address or config.bind, "registration: address")
        self.service = registration.service or f"gc-set-{config.name}"
        # One address is one instance, whichever run of the set has it.
        self.id = f"{self.service}-{self._host}-{self._port}"
        self._meta = {"set": config.name, "build": build[:128]}
        self._trouble = Trouble("set could not be registered", "set is registered again")
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to register; returns at once."""
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Take the set out of the registry, so that routers go elsewhere at once. Never raises."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper
        try:
            await asyncio.to_thread(self._deregister)
            log.info("set deregistered", service=self.service)
        except _ERRORS as error:
            log.warning("set could not be deregistered", service=self.service, reason=_words(error))

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                if await asyncio.to_thread(self._ensure):
                    log.info("set registered", service=self.service, address=f"{self._host}:{self._port}")
                self._trouble.over()
                pause_s, failures = LOOK_S, 0
            except _ERRORS as error:
                self._trouble.met(_words(error))
                failures += 1
                pause_s = RETRY.after(failures)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))

    def _ensure(self) -> bool:
        """Register the set unless the agent has it as it is; True if it did not. Blocks."""
        with self._agent() as consul:
            known: Any = consul.agent.services()
            found = known.get(self.id) if isinstance(known, dict) else None
            if isinstance(found, dict) and found.get("Meta") == self._meta:
                return False
            host = f"[{self._host}]" if ":" in self._host else self._host
            accepted = consul.agent.service.register(
                self.service,
                service_id=self.id,
                address=self._host,
                port=self._port,
                tags=[_TAG],
                meta=self._meta,
                check=Check.http(
                    f"http://{host}:{self._port}/readyz",
                    CHECK_EVERY,
                    timeout=CHECK_TIMEOUT,
                    deregister=FORGET_AFTER,
                ),
            )
        if not accepted:
            raise ConsulException("the agent did not take the registration")
        return True

    def _deregister(self) -> None:
        with self._agent() as consul:
            consul.agent.service.deregister(self.id)

    def _agent(self) -> Consul:
        """A client of its own for each call, as threads may not share one."""
        registration = self._registration
        url = urlsplit(registration.consul)
        consul = Consul(
            host=url.hostname,
            port=url.port or (443 if url.scheme == "https" else 80),
            scheme=url.scheme,
            verify=registration.ca_file or True,
        )
        # The library lets the environment override the token, and requests use its proxies and .netrc.
        consul.token = registration.token()
        consul.http.session.trust_env = False
        consul.http.connections_timeout = CALL_S
        return consul


def _words(error: Exception) -> str:
    return str(error)[:500] or type(error).__name__
