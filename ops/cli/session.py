"""What every command shares: whom to call and as whom, how to print, and what an error's exit code is."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from ops.cli import exits, report
from ops.client import DEFAULT_URL, Client, ClientError

P = ParamSpec("P")

SHARED = "Where and as whom"
ENVIRONMENT = {"url": "GC_URL", "token": "GC_TOKEN", "account": "GC_ACCOUNT"}

UrlOption = Annotated[
    str | None,
    typer.Option(help=f"The router's address; else GC_URL, else {DEFAULT_URL}.", rich_help_panel=SHARED),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        help="The account's token; better as GC_TOKEN, which other users cannot see.", rich_help_panel=SHARED
    ),
]
AccountOption = Annotated[
    str | None,
    typer.Option(help="The account where no token is asked for; else GC_ACCOUNT.", rich_help_panel=SHARED),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print facts and errors as JSON.", rich_help_panel=SHARED)
]


@dataclass(slots=True)
class Session:
    """The caller's choices; a command's own option counts before the program's, and that before the environment."""

    url: str | None = None
    token: str | None = None
    account: str | None = None
    as_json: bool = False

    def refined(self, *, url: str | None, token: str | None, account: str | None, as_json: bool) -> "Session":
        """This session with a command's own options put over it."""
        return Session(url or self.url, token or self.token, account or self.account, as_json or self.as_json)

    def client(self) -> Client:
        """A client for these choices. Raises BadAddress."""
        chosen = {
            key: getattr(self, key) or os.environ.get(variable) or None
            for key, variable in ENVIRONMENT.items()
        }
        return Client(chosen["url"] or DEFAULT_URL, token=chosen["token"], account=chosen["account"])


def connected(command: Callable[Concatenate[Session, P], int]) -> Callable[..., int]:
    """Give a command the shared options, a Session for them as its first argument, and errors that exit properly.

    The command returns its exit code.
    """

    @functools.wraps(command, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    def wrapper(
        ctx: typer.Context,
        *,
        url: UrlOption = None,
        token: TokenOption = None,
        account: AccountOption = None,
        as_json: JsonOption = False,
        **arguments: Any,
    ) -> int:
        base = ctx.obj if isinstance(ctx.obj, Session) else Session()
        session = base.refined(url=url, token=token, account=account, as_json=as_json)
        try:
            code = command(session, **arguments)  # type: ignore[call-arg]
            sys.stdout.flush()
        except ClientError as failure:
            report.error(failure, as_json=session.as_json)
            return exits.of_error(failure)
        except BrokenPipeError:
            _forget_stdout()
            return exits.READER_GONE
        except OSError as failure:
            report.say(f"the output could not be written: {failure.strerror or failure}")
            _forget_stdout()
            return exits.IO
        return code

    _merge_signatures(wrapper, command)
    return wrapper


def _merge_signatures(wrapper: Callable[..., int], command: Callable[..., int]) -> None:
    """Typer reads a function's signature: show it the command's own parameters, then the shared ones."""
    own = list(inspect.signature(command).parameters.values())[1:]
    shared = inspect.signature(wrapper, follow_wrapped=False).parameters.values()
    kept = [each for each in shared if each.kind is not inspect.Parameter.VAR_KEYWORD]
    merged = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in [*kept[:1], *own, *kept[1:]]]
    wrapper.__signature__ = inspect.Signature(merged, return_annotation=int)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in merged}


def _forget_stdout() -> None:
    """Nobody can take what is still buffered: without this, Python would complain once more when it ends."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
