"""gunicorn's asgi worker, with its own refusals as problem details."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from sets.api.problems import MEDIA_TYPE, problem_of_http


class SetProtocol(ASGIProtocol):  # type: ignore[misc]
    """Answers what gunicorn itself refuses (a malformed head, a bad chunk) as the API answers everything else."""

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        try:
            title = HTTPStatus(status).phrase
        except ValueError:
            title = "Error"
        body = problem_of_http(status, title, message).body()
        extra = "".join(f"{name}: {value}\r\n" for name, value in extra_headers)
        head = (
            f"HTTP/1.1 {status} {title}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
            f"X-Set: {self.worker.cfg.settings['proc_name'].get().removeprefix('gc-set-')}\r\n"
            f"{extra}Connection: close\r\n\r\n"
        )
        self._safe_write(head.encode("latin-1") + body)


class SetWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """`gunicorn.workers.gasgi.ASGIWorker` with `SetProtocol`."""

    def init_process(self) -> None:
        # The worker names its protocol class in the middle of a long method: this is the seam that it leaves.
        gasgi.ASGIProtocol = SetProtocol
        super().init_process()
