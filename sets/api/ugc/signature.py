"""UGC's signature of a call: SHA-1 over the sorted parameters and the private key. Pure.

SHA-1 is what the clients send. A signature only shows that its sender has the private key, which is part of what is
hashed; finding two parameter lists with one sum would not help anybody without it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from typing import Final

SIGNATURE: Final = "Signature"
_AFTER_SIGNING: Final = "Date"
"""The Go, Java and C++ clients add this parameter to GetTaskList when they have signed it; Python signs it."""

Pairs = list[tuple[str, str]]


def sign(pairs: Iterable[tuple[str, str]], private_key: str) -> str:
    """The signature of a call's parameters, decoded. A repeated one contributes each value, in the order sent."""
    # Sorting is stable, so it keeps that order.
    named = sorted((pair for pair in pairs if pair[0] != SIGNATURE), key=lambda pair: pair[0])
    text = "".join(name + value for name, value in named) + private_key
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def is_signed(pairs: Pairs, private_key: str, given: str) -> bool:
    """Return True if `given` is the signature of these parameters in one of the forms that clients use."""
    given = given.lower()
    # All forms are compared, whichever fits, so that the time taken tells nothing.
    fits = [hmac.compare_digest(sign(form, private_key).encode(), given.encode()) for form in _forms(pairs)]
    return any(fits)


def _forms(pairs: Pairs) -> Iterator[Pairs]:
    """The parameters that a client may have signed: all that it sent; all but `Date`; all that are not empty."""
    yield pairs
    if any(name == _AFTER_SIGNING for name, _ in pairs):
        yield [pair for pair in pairs if pair[0] != _AFTER_SIGNING]
    if any(not value for _, value in pairs):
        yield [pair for pair in pairs if pair[1]]
