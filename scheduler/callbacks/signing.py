"""Signs callbacks by Standard Webhooks (https://www.standardwebhooks.com), and checks the secrets for that."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = range(24, 65)
"""Sizes, in bytes, that Standard Webhooks allows for a secret."""


def check_secret(text: str) -> None:
    """Raise `ValueError`, which does not show the secret, unless it is `whsec_` and the base64 of 24 to 64 bytes."""
    try:
        size = len(base64.b64decode(text.removeprefix(PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not text.startswith(PREFIX) or size not in SECRET_BYTES:
        raise ValueError(
            f"a secret is not {PREFIX} and the base64 of {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes; make one "
            'with: echo "whsec_$(openssl rand -base64 32)"'
        )


def signed(secrets: Sequence[str], message_id: str, now_us: int, body: bytes) -> dict[str, str]:
    """Return the three headers of a message. Each secret makes a signature, so that a receiver may have any of them."""
    second = now_us // 1_000_000
    moment = datetime.fromtimestamp(second, UTC)
    text = body.decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(second),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, moment, text) for secret in secrets),
    }
