"""Decides at which address each service is, by what the registry told last. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from router.discovery.instances import Instance
from router.routing.table import Table

Address: TypeAlias = tuple[str, int]


class Directory:
    """The addresses in force, by service.

    A service has one address, that of its set. It stays where it is while it is registered and passes its checks. It
    moves to a passing instance, the one that was registered last; without any, it stays.
    """

    def __init__(self, known: Mapping[str, Address] | None = None) -> None:
        self.addresses: dict[str, Address] = dict(known or {})

    def seen(self, service: str, instances: Sequence[Instance]) -> bool:
        """Take in an answer; True if the service's address is another one now."""
        before = self.addresses.get(service)
        after = _address(before, instances)
        if after is None or after == before:
            return False
        self.addresses[service] = after
        return True


def _address(before: Address | None, instances: Sequence[Instance]) -> Address | None:
    passing = [instance for instance in instances if instance.passing]
    if any((instance.host, instance.port) == before for instance in passing):
        return before
    if not passing and before is not None:
        return before
    newest = max(passing or instances, key=lambda each: (each.since, each.host, each.port), default=None)
    return (newest.host, newest.port) if newest is not None else None


def placed(table: Table, addresses: Mapping[str, Address]) -> Table:
    """`table` with each set that names a service at its address. The same table if none has another address."""
    moved = {
        name: replace(entry, host=address[0], port=address[1])
        for name, entry in table.sets.items()
        if entry.service
        and (address := addresses.get(entry.service)) is not None
        and address != (entry.host, entry.port)
    }
    if not moved:
        return table
    sets = {**table.sets, **moved}
    rules = tuple(replace(rule, weights=rule.weights.over(sets)) for rule in table.rules)
    return replace(table, sets=sets, default=table.default.over(sets), rules=rules)
