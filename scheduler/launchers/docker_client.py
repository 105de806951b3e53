"""The Docker client as the launcher uses it."""

from __future__ import annotations

from typing import Any, Final

from docker import APIClient
from docker.transport import UnixHTTPAdapter

_UNIX: Final = "http+docker://"
"""URLs of an engine at a unix socket, as the Docker client writes them."""


class Client(APIClient):
    """Bounds the wait of streams, which Docker's own client lets wait for ever, and keeps one connection.

    Docker's own adapter keeps 25, one for each of the last URLs, and ignores `num_pools`. As nearly every call has a
    URL of its own, a set's threads would keep hundreds that they never use again.
    """

    def __init__(self, stall_s: float | None, **options: Any) -> None:
        self._stall_s = stall_s
        super().__init__(**options)
        adapter = self.adapters.get(_UNIX)
        if isinstance(adapter, UnixHTTPAdapter):
            adapter.close()
            self.mount(_UNIX, UnixHTTPAdapter(adapter.socket_path, adapter.timeout, pool_connections=1))

    def request(self, *arguments: Any, **options: Any) -> Any:
        if options.get("timeout") is None:
            options["timeout"] = self._stall_s
        return super().request(*arguments, **options)
