"""How much of the evidence one caller can be."""

from __future__ import annotations

import random

import pytest

from router.choosing.choice import Choice
from router.counting.observer import Observer
from router.counting.open_requests import OpenRequests
from router.counting.shares import Networks, Shares, network_of
from router.wire.failure import Failure
from tests.router.counting.heads import head_of
from tests.router.counting.test_observer import HALF, OK, SETS, choice, observer, waits


def of_key(home: str, key: int, client: str | None = None) -> Choice:
    """A request of another key, wherever that lives, and from that address."""
    made = Choice(SETS[home], SETS[home], key, HALF)
    if client is not None:
        made.head = head_of(client)
    return made


def test_a_key_that_always_fails_is_capped_beside_many_that_do_not() -> None:
    seen = observer()
    for number in range(600):
        seen.answered(of_key("b", number), SETS["b"], OK, 0.01)
        seen.failed(choice("b"), SETS["b"], Failure.RESET, 0.01)
        seen.began(choice("b"), SETS["b"], float(number))
    assert seen.canary.ok == 600
    assert 3 <= seen.canary.error <= 7, "a hundredth"
    assert 3 <= sum(seen.seen(700.0)[0].open.values()) <= 7


def test_an_address_that_takes_another_key_each_time_is_capped_likewise() -> None:
    """A stranger can choose keys that live at the canary: the answers say where they went."""
    seen, chance = observer(), random.Random(1)
    for number in range(600):
        client = f"198.51.{number % 100}.{number % 250}"
        for name in ("a", "b"):
            seen.answered(of_key(name, chance.getrandbits(60), client), SETS[name], OK, 0.01)
            seen.failed(of_key(name, chance.getrandbits(60), "203.0.113.9"), SETS[name], Failure.RESET, 0.01)
            seen.began(of_key(name, chance.getrandbits(60), "203.0.113.9"), SETS[name], float(number))
    for tally in seen.seen(700.0):
        assert tally.ok >= 590
        assert tally.error <= 15, "a hundredth of 600, or twice the average of 100 addresses"
        assert 3 <= sum(tally.open.values()) <= 15


def test_an_address_has_no_more_than_its_share_of_the_good_either() -> None:
    """Else its good requests would hide the others' failures."""
    seen, chance = observer(), random.Random(1)
    for number in range(500):
        seen.answered(of_key("b", chance.getrandbits(60), "203.0.113.9"), SETS["b"], OK, 0.01)
        seen.failed(
            of_key("b", chance.getrandbits(60), f"198.51.100.{number % 250}"),
            SETS["b"],
            Failure.RESET,
            0.01,
        )
    assert seen.canary.error >= 490
    assert seen.canary.ok <= 10


def test_behind_one_address_all_count_and_few_share_all() -> None:
    seen, chance = observer(), random.Random(1)
    for number in range(90):
        for name in ("a", "b"):
            seen.answered(of_key(name, number % 3, "203.0.113.9"), SETS[name], OK, 0.01)
    assert (seen.canary.ok, seen.control.ok) == (90, 90)
    for number in range(90):
        client = f"203.0.113.{number % 3}"
        seen.answered(of_key("b", chance.getrandbits(60), client), SETS["b"], OK, 0.01)
    assert seen.canary.ok > 150


def through_a_gateway(seen: Observer) -> None:
    """Most requests come from one address, a few from others."""
    chance = random.Random(1)
    for number in range(500):
        client = "10.0.0.7" if number % 50 else f"10.0.1.{number // 50}"
        seen.answered(of_key("b", chance.getrandbits(60), client), SETS["b"], OK, 0.01)


def test_a_gateway_counts_for_all_of_its_clients_where_the_file_names_it() -> None:
    seen = observer()
    through_a_gateway(seen)
    assert seen.canary.ok < 100
    assert seen.canary.left_out == 500 - seen.canary.ok, "and what is left out is told"
    seen.watch(2, "b", HALF, shared=["10.0.0.0/24"])
    through_a_gateway(seen)
    assert (seen.canary.ok, seen.canary.left_out) == (500, 0)
    for _ in range(50):
        seen.failed(of_key("b", 7, "10.0.0.7"), SETS["b"], Failure.RESET, 0.1)
    assert seen.canary.error <= 6, "its keys are capped all the same"


def test_networks_are_known_by_their_addresses() -> None:
    some = Networks(["10.0.0.0/8", "2001:db8::/32"])
    asked = ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "192.0.2.1", "2001:db9::1", "nobody")
    assert [client in some for client in asked] == [True, True, True, False, False, False]
    assert "10.1.2.3" not in Networks()


def test_what_waits_of_one_caller_is_capped_until_it_ends() -> None:
    waiting = OpenRequests(Shares())
    for number in range(100):
        assert waiting.began(1.0, of_key("b", number)) is not None
    found = [waiting.began(1.0, of_key("b", 7)) for _ in range(4)]
    assert [one is not None for one in found] == [True, True, False, False]
    assert found[0] is not None
    found[0].end()
    found[0].end()
    assert waiting.began(1.0, of_key("b", 7)) is not None
    assert waiting.began(1.0, of_key("b", 7)) is None


def test_a_caller_of_whom_no_address_is_known_is_judged_by_the_key() -> None:
    seen = observer()
    for number in range(90):
        seen.answered(of_key("b", number, "unknown"), SETS["b"], OK, 0.01)
    assert seen.canary.ok == 90


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_a_network_of_ipv6_is_one_client(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same
    assert network_of("nobody") is None


def test_neighbouring_networks_do_not_share_a_cap() -> None:
    assert len({network_of(f"10.0.{n}.0") for n in range(256)}) > 200


def test_the_observer_forgets_shares_with_its_stint() -> None:
    seen: Observer = observer()
    for number in range(20):
        seen.answered(of_key("b", number), SETS["b"], OK, 0.01)
    for _ in range(10):
        seen.answered(of_key("b", 99), SETS["b"], OK, 0.01)
    assert seen.canary.ok == 23
    seen.watch(2, "b", HALF)
    for _ in range(10):
        seen.answered(of_key("b", 99), SETS["b"], OK, 0.01)
    assert seen.canary.ok == 10
    assert waits(seen.canary) == []
