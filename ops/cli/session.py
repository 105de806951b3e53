"""Shared by all commands: the options for address and account, JSON output, and exit codes for errors."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, Final, ParamSpec

from ops.cli import exits, report
from ops.cli.command import Context, Option, UsageError
from ops.cli.streams import OutputFailed, forget_output
from ops.client import DEFAULT_URL, Client, ClientError

P = ParamSpec("P")

SHARED: Final = "Address and account"
ENVIRONMENT: Final = {"url": "GC_URL", "token": "GC_TOKEN", "account": "GC_ACCOUNT"}

UrlOption = Annotated[
    str | None,
    Option(help=f"The router's address; else GC_URL, else {DEFAULT_URL}.", panel=SHARED),
]
TokenOption = Annotated[
    str | None,
    Option(help="The account's token; prefer GC_TOKEN, which other users cannot see.", panel=SHARED),
]
AccountOption = Annotated[
    str | None,
    Option(help="The account, if the service needs no token; else GC_ACCOUNT.", panel=SHARED),
]
SET_URL: Final = "http://127.0.0.1:8101"
"""Address of set `a` of the local stack."""
_SET: Final = "Address of the set"
_OF_A_SET: Final[dict[str, Any]] = {
    "url": Annotated[
        str | None,
        Option(help=f"The set's own address, not a router's; else GC_SET_URL, else {SET_URL}.", panel=_SET),
    ],
    "token": Annotated[
        str | None,
        Option(
            help="An operator's token, where the set asks for one; prefer GC_OPERATOR_TOKEN, which other users cannot "
            "see.",
            panel=_SET,
        ),
    ],
    "account": None,
    "as_json": Annotated[bool, Option(("--json",), help="Print facts and errors as JSON.")],
}
"""The shared options of commands that operators give a set; None: there is no such option."""
JsonOption = Annotated[bool, Option(("--json",), help="Print facts and errors as JSON.", panel=SHARED)]


@dataclass(slots=True)
class Session:
    """The caller's options; those of the command override those of the program, and both the environment."""

    url: str | None = None
    token: str | None = None
    account: str | None = None
    as_json: bool = False

    def refined(self, *, url: str | None, token: str | None, account: str | None, as_json: bool) -> "Session":
        """Return this session, overridden by a command's own options."""
        return Session(url or self.url, token or self.token, account or self.account, as_json or self.as_json)

    def set_client(self) -> Client:
        """Make a client for the set that an operator names. Raises BadAddress."""
        url = self.url or os.environ.get("GC_SET_URL") or SET_URL
        return Client(url, token=self.token or os.environ.get("GC_OPERATOR_TOKEN") or None)

    def client(self) -> Client:
        """Make a client for this session. Raises BadAddress."""
        chosen = {
            key: getattr(self, key) or os.environ.get(variable) or None
            for key, variable in ENVIRONMENT.items()
        }
        return Client(chosen["url"] or DEFAULT_URL, token=chosen["token"], account=chosen["account"])


def connected(command: Callable[Concatenate[Session, P], int]) -> Callable[..., int]:
    """Add the shared options to a command, pass it a Session as first argument, and map its errors to exit codes.

    The command returns its exit code.
    """
    return _connected(command, as_task=False, options={})


def at_set(command: Callable[Concatenate[Session, P], int]) -> Callable[..., int]:
    """Like `connected`, for an operator's command to one set: routers do not relay it."""
    return _connected(command, as_task=False, options=_OF_A_SET)


def ends_as_task(command: Callable[Concatenate[Session, P], int]) -> Callable[..., int]:
    """Like `connected`, for a command that exits with a task's code: every error of our own is `exits.FAILED`."""
    return _connected(command, as_task=True, options={})


def _connected(
    command: Callable[Concatenate[Session, P], int], *, as_task: bool, options: Mapping[str, Any]
) -> Callable[..., int]:
    @functools.wraps(command, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    def wrapper(
        ctx: Context,
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
            code = exits.of_error(failure, as_task=as_task)
            report.error(failure, as_json=session.as_json, code=code)
        except OutputFailed as failure:
            code = lost_output(failure, as_task=as_task)
        except OSError as failure:
            report.say(f"{failure.filename or 'a file'}: {failure.strerror or failure}")
            code = exits.FAILED if as_task else exits.IO
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        return code

    wrapper.as_task = as_task  # type: ignore[attr-defined]
    _merge_signatures(wrapper, command, options)
    return wrapper


def lost_output(failure: OutputFailed, *, as_task: bool = False) -> int:
    """Report that the output could not be written, and discard the rest of it. Returns the exit code."""
    forget_output()
    if failure.reader_gone:
        return exits.READER_GONE
    report.say(str(failure))
    return exits.FAILED if as_task else exits.IO


def _merge_signatures(
    wrapper: Callable[..., int], command: Callable[..., int], options: Mapping[str, Any]
) -> None:
    """Set the signature that the command is made from: the command's own parameters, then the shared ones.

    `options` has shared ones that mean something else for this command, by name; None: it has no such option.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    shared = inspect.signature(wrapper, follow_wrapped=False).parameters.values()
    kept = [
        each.replace(annotation=options.get(each.name, each.annotation))
        for each in shared
        if each.kind is not inspect.Parameter.VAR_KEYWORD and options.get(each.name, True) is not None
    ]
    merged = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in [*kept[:1], *own, *kept[1:]]]
    wrapper.__signature__ = inspect.Signature(merged, return_annotation=int)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in merged}
