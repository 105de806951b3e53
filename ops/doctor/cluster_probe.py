"""Asks a Nomad cluster, with the registrar's address, certificate and token. Each call may raise `CannotTell`."""

from __future__ import annotations

import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from ops.doctor.asking import Answer, ask, tls_context
from ops.doctor.cluster import Client, Door, Servers
from ops.doctor.finding import CannotTell
from ops.doctor.policy import Token
from scheduler.launchers.nomad.settings import RegistrarSettings, SettingsError

_NO_ACL: Final = "ACL support disabled"
NODES_MAX: Final = 200
"""Most clients that are looked at one by one."""


class Cluster:
    """A cluster as the registrar of these settings sees it."""

    def __init__(self, settings: RegistrarSettings) -> None:
        """Raises `CannotTell` where the settings' files cannot be used."""
        self._settings = settings
        self._tls = None
        try:
            self._token = settings.token()
            if settings.address.startswith("https"):
                self._tls = tls_context(settings.ca_file, settings.certificate())
        except SettingsError as error:
            raise CannotTell(str(error)) from error

    def door(self) -> Door:
        answer = self._ask("/v1/acl/token/self")
        acl = not (answer.status in (400, 500) and _NO_ACL.encode() in answer.body)
        address = urlsplit(self._settings.address)
        return Door(address.hostname or "", address.scheme == "https", bool(self._token), acl)

    def date(self) -> str | None:
        return self._ask("/v1/status/leader").headers.get("date")

    def servers(self) -> Servers:
        leader = self._got("/v1/status/leader")
        return Servers(str(leader or ""), [str(each) for each in self._got("/v1/status/peers") or ()])

    def token(self) -> Token:
        answer = self._ask("/v1/acl/token/self")
        if _NO_ACL.encode() in answer.body:
            raise CannotTell("ACLs are off")
        if answer.status != 200:
            raise CannotTell(f"the cluster does not know the token (it answers {answer.status})")
        own = answer.object()
        names = [*(own.get("Policies") or ()), *self._of_roles(own)]
        policies = {}
        for name in names:
            rules = self._got(f"/v1/acl/policy/{quote(name, safe='')}").get("RulesJSON")
            if rules is None:
                raise CannotTell(
                    "this Nomad does not show a policy's rules as JSON; look at `nomad acl policy info`"
                )
            policies[name] = rules
        return Token(str(own.get("Type")), policies, _seconds_until(own.get("ExpirationTime")))

    def _of_roles(self, own: dict[str, Any]) -> list[str]:
        found = []
        for role in own.get("Roles") or ():
            told = self._got(f"/v1/acl/role/{quote(str(role.get('ID')), safe='')}")
            found += [str(each.get("Name")) for each in told.get("Policies") or ()]
        return found

    def clients(self) -> list[Client]:
        """Return the clients of the set's node pool."""
        query = urlencode({"filter": f'NodePool == "{self._settings.node_pool}"', "per_page": NODES_MAX})
        listed = self._got(f"/v1/nodes?{query}") or ()
        return [Client(self._got(f"/v1/node/{each['ID']}")) for each in listed]

    def _got(self, path: str) -> Any:
        answer = self._ask(path)
        if answer.status in (401, 403):
            raise CannotTell("the cluster denies it to this token")
        if answer.status != 200:
            raise CannotTell(f"the cluster answers {answer.status} to {path.partition('?')[0]}")
        return answer.document()

    def _ask(self, path: str) -> Answer:
        headers = {"X-Nomad-Token": self._token} if self._token else {}
        return ask(self._settings.address, path, headers, self._tls)


def _seconds_until(moment: object) -> float | None:
    if not moment:
        return None
    try:
        until = datetime.datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    except ValueError as error:
        raise CannotTell(f"the token's end {moment!r} is no time") from error
    return (until - datetime.datetime.now(datetime.UTC)).total_seconds()
