"""The `access_log` section of the operators' file. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

OFF: Final = "off"
STDERR: Final = "stderr"


class AccessLogPolicy(msgspec.Struct, frozen=True):
    """`to`: an absolute path, `stderr` or `off`. `sample`: the share of the requests that went well to log; the
    others are all logged, up to `errors_per_s` by each worker."""

    to: str = OFF
    sample: float = 1.0
    errors_per_s: int = 100


def is_target(text: str) -> bool:
    """Return True if an access log can go there."""
    return text in (OFF, STDERR) or text.startswith("/")
