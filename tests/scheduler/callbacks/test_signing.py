"""Signatures of callbacks, as receivers verify them."""

from __future__ import annotations

import base64

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from scheduler.callbacks.signing import check_secret, signed
from scheduler.clock import wall_us

SECRETS = tuple("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in range(3))
BODY = '{"state":"succeeded","name":"ä"}'.encode()


def test_a_receiver_that_has_any_of_the_secrets_verifies_it() -> None:
    headers = signed(SECRETS[:2], "a-1", wall_us(), BODY)
    assert headers["webhook-id"] == "a-1"
    for secret in SECRETS[:2]:
        assert Webhook(secret).verify(BODY, headers)["name"] == "ä"


def test_with_another_secret_or_another_body_it_does_not() -> None:
    headers = signed(SECRETS[:1], "a-1", wall_us(), BODY)
    for secret, body, changed in (
        (SECRETS[2], BODY, {}),
        (SECRETS[0], BODY + b" ", {}),
        (SECRETS[0], BODY, {"webhook-id": "a-2"}),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers | changed)


def test_the_example_of_the_specification_has_its_signature() -> None:
    """The published test vector of Standard Webhooks."""
    headers = signed(
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330_000_000,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_of_a_usual_size_passes(size: int) -> None:
    check_secret("whsec_" + base64.b64encode(b"x" * size).decode())


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_not base64!",
        base64.b64encode(b"x" * 32).decode(),
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
    ],
)
def test_another_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="openssl rand") as caught:
        check_secret(secret)
    assert not secret or len(secret) < 8 or secret not in str(caught.value)
