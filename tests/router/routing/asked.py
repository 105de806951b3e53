"""A request's facts, as rules and weights look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class Asked:
    """Facts by hand, in place of a request's head."""

    method: str = "POST"
    path: str = "/v1/run/cat"
    account: str = "default"
    image: str | None = "cat"
    client: str = "10.0.0.1"
    headers: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def header(self) -> Callable[[bytes], bytes | None]:
        return self.headers.get
