"""The guest, PID 1 of every slot: `guest.c`, its contract in `PROTOCOL.md`, and where the built binary lies."""

from pathlib import Path
from typing import Final

GUEST_BINARY: Final = Path(__file__).with_name("guest")
