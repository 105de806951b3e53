"""Requests as the four public clients of UGC form them, read from their sources (../shared/ugc-api.md)."""

from __future__ import annotations

import io
import tarfile
from typing import Any, Final
from urllib.parse import quote, quote_plus

import httpx

from scheduler.accounts.book import NewKey
from sets.api.ugc.signature import sign

REGION: Final = "cn-bj2"
Pairs = list[tuple[str, str]]


class UgcClient:
    """Sends calls in the form of one client: `spelling` encodes a blank as `+` or as `%20`."""

    def __init__(self, http: httpx.Client, keys: NewKey, *, blank: str = "+") -> None:
        self._http = http
        self.keys = keys
        self._quote = quote_plus if blank == "+" else quote

    def signed(self, action: str, *pairs: tuple[str, str], after: Pairs | None = None) -> httpx.Response:
        """A management call; `after`: parameters that are added when it was signed."""
        sent = [("Action", action), ("Region", REGION), ("PublicKey", self.keys.public_key), *pairs]
        sent.append(("Signature", sign(sent, self.keys.private_key)))
        return self.send("GET", [*sent, *(after or [])])

    def with_token(
        self, action: str, token: str, *pairs: tuple[str, str], body: bytes | None = None
    ) -> httpx.Response:
        """A call about tasks; with a body it is a POST of it."""
        sent = [("Action", action), ("Region", REGION), ("AccessToken", token), *pairs]
        return self.send("GET" if body is None else "POST", sent, body)

    def send(self, method: str, pairs: Pairs, body: bytes | None = None) -> httpx.Response:
        query = "&".join(f"{self._quote(name)}={self._quote(value)}" for name, value in pairs)
        headers = {} if body is None else {"Content-Type": "application/octet-stream"}
        answer = self._http.request(method, f"/?{query}", content=body, headers=headers)
        # Clients read no other status, and decide by the type whether it is JSON.
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] in ("application/octet-stream", "application/json")
        assert answer.headers["X-Set"]
        return answer

    def token(self, *pairs: tuple[str, str]) -> str:
        answer = said(self.signed("GetAccessToken", *pairs), 0, "\u6210\u529f", "GetAccessToken")
        token: str = answer["AccessToken"]
        return token


def said(answer: httpx.Response, code: int, message: str, action: str | None = None) -> dict[str, Any]:
    """The JSON of an answer, checked to have this code and message."""
    assert answer.headers["Content-Type"] == "application/json", answer.content[:200]
    assert answer.content.isascii()
    found: dict[str, Any] = answer.json()
    assert (found["RetCode"], found["Message"]) == (code, message), found
    if action is not None:
        assert found["Action"] == f"{action}Response"
    return found


def members(answer: httpx.Response) -> dict[str, bytes]:
    """The files of an answer that is a tar, whose length was told before it came."""
    assert answer.headers["Content-Type"] == "application/octet-stream", answer.text
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
