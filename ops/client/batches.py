"""The calls about batches, one method each."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote

from ops.client.body import Body, source_of
from ops.client.errors import NotGeneralCompute
from ops.client.model import AsyncOptions, parameters, submit_headers
from ops.client.transport import IDLE_TIMEOUT_S, Transport

LINES: Final = "application/jsonl"
ARCHIVE: Final = "application/x-tar"
IDS: Final = "text/plain"
Batch = dict[str, Any]


class Batches:
    """Batches of the account. Raises ClientError as `Client` does."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(
        self,
        image: str,
        args: Iterable[str],
        options: AsyncOptions,
        *,
        body: Body,
        media_type: str,
        inputs_of: str | None = None,
    ) -> Batch:
        """Run an image once for each input in the body; when this returns, the service has all of them on disk.

        The inputs are files of a tar archive (`ARCHIVE`), JSON lines (`LINES`), or the outputs of earlier tasks whose
        ids the body has, one a line (`IDS`). `inputs_of` is one of these then: a router finds their set by it.
        """
        named = [("inputs_of", inputs_of)] if inputs_of is not None else []
        return self._batch(
            "POST",
            f"/v1/batches/{quote(os.fsencode(image), safe='/:@')}",
            query=[*parameters(args, options), *named],
            headers=[("Content-Type", media_type), *submit_headers(options)],
            body=source_of(body),
            # All inputs are checked and synced to disk before the answer.
            idle_timeout_s=10 * IDLE_TIMEOUT_S,
        )

    def get(self, batch_id: str, *, wait_s: float = 0) -> Batch:
        """Return the batch as it is now, or, with `wait_s`, once it is over or that many seconds have passed."""
        query = [("wait", format(wait_s, "g"))] if wait_s else []
        return self._batch("GET", _path(batch_id), query=query, idle_timeout_s=IDLE_TIMEOUT_S + wait_s)

    def page(self, *, before: str | None = None, limit: int | None = None) -> dict[str, Any]:
        """Return one page of the account's batches, newest first; its `next` is the `before` of the next call."""
        asked = {"before": before, "limit": limit}
        query = [(key, str(value)) for key, value in asked.items() if value is not None]
        page = self._transport.document("GET", "/v1/batches", query=query)
        if not isinstance(page.get("batches"), list):
            raise NotGeneralCompute(f"{self._transport.url} answered a list of batches without `batches`")
        return page

    def cancel(self, batch_id: str) -> Batch:
        """End the batch; one that is over is left unchanged."""
        return self._batch("POST", f"{_path(batch_id)}/cancel")

    def retry(self, batch_id: str) -> Batch:
        """Run again what failed, timed out or was cancelled."""
        return self._batch("POST", f"{_path(batch_id)}/retry")

    def results(self, batch_id: str, *, after: int = 0) -> Iterator[bytes]:
        """Yield the tar archive of the tasks that have ended behind place `after`."""
        connection, answer = self._transport.call(
            "GET", f"{_path(batch_id)}/results", query=[("after", str(after))]
        )
        try:
            yield from answer
        finally:
            self._transport.release(connection, answer)

    def _batch(self, method: str, path: str, **call: Any) -> Batch:
        batch = self._transport.document(method, path, **call)
        if not isinstance(batch.get("id"), str) or not isinstance(batch.get("counts"), dict):
            raise NotGeneralCompute(f"{self._transport.url} answered a batch without `id` or `counts`")
        return batch


def _path(batch_id: str) -> str:
    return f"/v1/batches/{quote(os.fsencode(batch_id), safe='')}"
