"""Sends the calls of one client: over one kept connection, with refusals turned into errors."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from ops.client.body import BytesSource, Source
from ops.client.errors import AnswerBroken, ClientError, NotGeneralCompute, Unreachable, problem
from ops.client.wire import Address, Answer, Connection, Request

DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
IDLE_TIMEOUT_S: Final = 60.0
"""Longest time without a byte in either direction, in seconds, beyond the time that the call itself waits."""


class Transport:
    """The way to one address. Keeps one idle connection for the next call.

    Every method raises ClientError: Unreachable without a connection or answer, ApiProblem if the API refused,
    AnswerBroken if an answer was cut.
    """

    def __init__(self, url: str, *, token: str | None, account: str | None) -> None:
        self._address = Address.parse(url)
        self._headers = [("User-Agent", "gcompute"), ("Accept", "*/*")]
        if token:
            self._headers.append(("Authorization", f"Bearer {token}"))
        if account:
            self._headers.append(("X-Account", account))
        self._idle: Connection | None = None

    @property
    def url(self) -> str:
        return str(self._address)

    def document(self, method: str, path: str, **call: Any) -> dict[str, Any]:
        """Make a call, and return the JSON object that answers it."""
        connection, answer = self.call(method, path, **call)
        try:
            document = _json(answer.read(DOCUMENT_BYTES_MAX))
        finally:
            self.release(connection, answer)
        if document is None:
            raise NotGeneralCompute(
                f"{self.url} answered {method} {path} with something that is not a JSON object"
            )
        return document

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Iterable[tuple[str, str]] = (),
        headers: Iterable[tuple[str, str]] = (),
        body: Source | None = None,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> tuple[Connection, Answer]:
        """Make a call, and return the answer, whose body is still to be read; then `release` both."""
        target = self._address.prefix + path
        # Arguments are bytes for the algorithm: those that are not UTF-8 are sent unchanged.
        encoded = urlencode([(key, os.fsencode(value)) for key, value in query], quote_via=quote)
        request = Request(
            method,
            f"{target}?{encoded}".encode("ascii") if encoded else target.encode("ascii"),
            [*self._headers, *headers],
            body or BytesSource(b""),
            idle_timeout_s,
        )
        connection, answer = self._send(request)
        if answer.status >= 400:
            try:
                raise self._problem(answer)
            finally:
                self.release(connection, answer)
        if answer.status >= 300:
            self.release(connection, answer)
            raise NotGeneralCompute(f"{self.url} answered with a redirect, which General Compute never does")
        return connection, answer

    def _send(self, request: Request) -> tuple[Connection, Answer]:
        connection, self._idle = self._idle, None
        if connection is not None and connection.stale:
            connection.close()
            connection = None
        reused = connection is not None
        connection = connection or Connection(self._address)
        try:
            return connection, connection.request(request)
        except Unreachable:
            connection.close()
            if not reused or request.method != "GET":
                raise
        except BaseException:
            connection.close()
            raise
        # The server closed the kept connection just as we used it; it is safe to ask again.
        connection = Connection(self._address)
        try:
            return connection, connection.request(request)
        except BaseException:
            connection.close()
            raise

    def release(self, connection: Connection, answer: Answer) -> None:
        """Keep the connection for the next call if the answer was read to its end; close it otherwise."""
        if answer.whole and connection.reusable and self._idle is None:
            self._idle = connection
        elif connection is not self._idle:
            connection.close()

    def _problem(self, answer: Answer) -> ClientError:
        text = b""
        with contextlib.suppress(AnswerBroken, Unreachable):
            text = answer.read(DOCUMENT_BYTES_MAX)
        document = _json(text)
        if document is None or "title" not in document:
            said = text[:200].decode("utf-8", "replace").strip()
            ours = answer.headers.keys() & {"x-set", "x-router"}
            if not ours:
                return NotGeneralCompute(
                    f"{self.url} answered {answer.status}, but not as General Compute does: {said!r}"
                )
            document = {"title": f"status {answer.status}", "detail": said, "status": answer.status}
        return problem(
            document,
            status=answer.status,
            router=answer.headers.get("x-router"),
            retry_after_s=_seconds(answer.headers),
        )

    def close(self) -> None:
        """Close the connection that is kept for the next call."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _seconds(headers: Mapping[str, str]) -> int | None:
    value = headers.get("retry-after", "")
    return int(value) if value.isascii() and value.isdigit() else None
