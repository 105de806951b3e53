"""Sends one message to a receiver: a bounded POST to an address that was looked up and checked just before."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import httpcore

from scheduler.callbacks.networks import Networks
from scheduler.callbacks.target import Target
from scheduler.callbacks.verdict import Answer

TRY_S: Final = 15.0
"""Longest try, in seconds, from the lookup of the name to the last byte that is read."""
CONNECT_S: Final = 5.0
"""Longest wait, in seconds, for one of several addresses to accept a connection."""
ANSWER_BYTES: Final = 64 * 1024
"""Most bytes, head and body together, that are read of an answer."""
ADDRESSES: Final = 4
"""Most addresses of one name that are tried."""
USER_AGENT: Final = "general-compute-callbacks"
_WORDS_CHARS: Final = 200

Resolve = Callable[[str, int], Sequence[str]]
"""Returns the IP addresses of a host; called in a thread. Raises `OSError`."""


class _Refused(Exception):
    """The address must not be connected to."""


class Sender:
    """Sends messages. Neither proxies nor any other setting of the environment count, and redirects are not followed.

    `networks` decides which addresses may be connected to. `ca_file` has the certificates to trust; by default the
    usual authorities are trusted.
    """

    def __init__(
        self,
        networks: Networks,
        *,
        ca_file: str | None = None,
        resolve: Resolve | None = None,
        try_s: float = TRY_S,
    ) -> None:
        self._networks = networks
        self._ca_file = ca_file
        self._resolve = resolve or addresses_of
        self._try_s = try_s
        self._tls: ssl.SSLContext | None = None

    async def send(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a message, and return what came of it within `try_s`. The status counts once it is there.

        A lookup that takes longer is waited for: its thread cannot be ended, and counts as long as it lasts.
        """
        post = _Post(target, headers, body)
        lookup = _in_a_thread(self._resolve, target.host, target.port)
        try:
            async with asyncio.timeout(self._try_s):
                addresses = self._allowed(await asyncio.shield(lookup))
                await post.run(addresses, await self._trust() if target.scheme == "https" else None)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            failure = _words(error)
        except TimeoutError:
            failure = f"no answer came within {self._try_s:g} s"
        except (_Refused, OSError) as error:
            failure = _words(error)
        else:
            failure = ""
        if not lookup.done():
            await asyncio.wait({lookup})
        return post.answer or Answer(error=failure)

    def _allowed(self, found: Sequence[str]) -> list[str]:
        """The addresses that may be connected to. Raises `_Refused`."""
        allowed = [address for address in found if self._networks.may_reach(address)]
        if not allowed:
            seen = found[0] if found else "none"
            raise _Refused(
                f"the host's address is {seen}, which callbacks may not reach; the set's operator can allow its network"
            )
        return allowed[:ADDRESSES]

    async def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reading the certificates takes tens of milliseconds.
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_file)
        return self._tls


class _Post:
    """One POST. `answer` is there as soon as the answer's head is."""

    def __init__(self, target: Target, headers: Mapping[str, str], body: bytes) -> None:
        self.answer: Answer | None = None
        self._target = target
        self._body = body
        # httpcore adds Content-Length. Its own Host would have an IPv6 address without brackets.
        self._headers = [
            ("host", target.authority),
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            ("connection", "close"),
            *headers.items(),
        ]

    async def run(self, addresses: Sequence[str], tls: ssl.SSLContext | None) -> None:
        """Connect to the first address that accepts, send, and read the answer. Raises errors of httpcore."""
        target = self._target
        # A pool for one connection: a kept one would lead to an address that was checked long ago.
        async with httpcore.AsyncConnectionPool(
            ssl_context=tls, network_backend=_To(addresses), max_connections=1, max_keepalive_connections=0
        ) as pool:
            url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
            async with pool.stream("POST", url, headers=self._headers, content=self._body) as response:
                self.answer = Answer(response.status, retry_after_s=_retry_after_s(response.headers))
                # Some receivers give up what they do when their answer is not read.
                async for _ in response.aiter_stream():
                    pass


class _To(httpcore.AsyncNetworkBackend):
    """Connects to given addresses, whatever the name of the host means by now."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        several = len(self._addresses) > 1
        for address in self._addresses[:-1]:
            try:
                return _Bounded(await self._backend.connect_tcp(address, port, timeout=CONNECT_S))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                pass
        last = self._addresses[-1]
        return _Bounded(await self._backend.connect_tcp(last, port, timeout=CONNECT_S if several else None))


class _Bounded(httpcore.AsyncNetworkStream):
    """A connection of which at most `ANSWER_BYTES` are read."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left_bytes = ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise httpcore.ReadError(f"its answer has more than {ANSWER_BYTES} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Bounded(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def addresses_of(host: str, port: int) -> list[str]:
    """The IP addresses of a host, as the system resolves its name. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _in_a_thread(resolve: Resolve, host: str, port: int) -> asyncio.Future[Sequence[str]]:
    """Resolve a name in a daemon thread of its own: a pool's threads would be joined when the set stops, and one dead
    name server would take them all."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(found: Sequence[str], error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)
            # Nobody may be left to hear of it.
            future.exception()

    def run() -> None:
        found: Sequence[str] = ()
        failure: BaseException | None = None
        try:
            found = resolve(host, port)
        except (OSError, UnicodeError) as error:
            failure = OSError(f"its name cannot be resolved: {error}")
        except BaseException as error:
            failure = error
        # The set may have stopped meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=run, name="callback-lookup", daemon=True).start()
    return future


def _retry_after_s(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The seconds of a Retry-After header; None for none, and for a date."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            return int(value)
    return None


def _words(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, httpcore.RemoteProtocolError):
        # The library's own words may show bytes of an answer that was not meant for the account.
        return "the receiver closed the connection, or does not speak HTTP/1.1"
    text = "".join(character for character in str(error) if character.isprintable())[:_WORDS_CHARS]
    return f"the receiver cannot be reached: {text or type(error).__name__}"
