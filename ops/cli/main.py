"""The program `gcompute`: lists its commands, loads each when it is called, and maps errors to exit codes."""

import sys
from typing import Annotated, Final, Literal

import click

from ops.cli import exits, streams
from ops.cli.command import Command, Context, Entry, Group, Option
from ops.cli.session import AccountOption, JsonOption, Session, TokenOption, UrlOption, lost_output

PROGRAM: Final = "gcompute"
_START: Final = "Start a part of the service"
_OPERATE: Final = "Operate the service"
_COMMANDS: Final = (
    Entry("run", "ops.cli.run:run"),
    Entry("submit", "ops.cli.run:submit"),
    Entry("status", "ops.cli.tasks:status"),
    Entry("result", "ops.cli.tasks:result"),
    Entry("logs", "ops.cli.logs:logs"),
    Entry("wait", "ops.cli.tasks:wait"),
    Entry("cancel", "ops.cli.tasks:cancel"),
    Entry("tasks", "ops.cli.tasks:tasks"),
    Entry("replay", "ops.cli.replay:replay"),
    Entry("callbacks", "ops.cli.callbacks:callbacks"),
    Entry("map", "ops.cli.map:map_"),
    Entry("batch", "ops.cli.batch:batch"),
    Entry("set", "ops.cli.set_group:set_", _START),
    Entry("registrar", "ops.cli.serve:start_registrar", _START),
    Entry("executor", "ops.cli.serve:start_executor", _START),
    Entry("router", "ops.cli.router:router", _START),
    Entry("account", "ops.cli.accounts:account", _OPERATE),
    Entry("key", "ops.cli.keys:key", _OPERATE),
    Entry("token", "ops.cli.token:token", _OPERATE),
    Entry("cert", "ops.cli.cert:cert", _START),
    Entry("doctor", "ops.cli.doctor:doctor", _OPERATE),
    Entry("nodes", "ops.cli.nodes:nodes", _OPERATE),
    Entry("pools", "ops.cli.pools:pools", _OPERATE),
    Entry("queue", "ops.cli.pools:queue", _OPERATE),
    Entry("simulate", "ops.cli.simulate:simulate", _OPERATE),
)
_HELP: Final = """Run container images as functions: standard input in, standard output out, on General Compute.

    Examples:

        gcompute run imgproc:1 thumbnail 200x200 < photo.jpg > small.jpg

        gcompute submit ocr:1 -l eng < page.png

        gcompute tasks --state running

        eval "$(gcompute --completion bash)"
"""


def _print_version(_: Context, __: bool) -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("general-compute")
    except PackageNotFoundError:
        number = "(not installed)"
    print(f"{PROGRAM} {number}")


def _print_completion(ctx: Context, shell: str) -> None:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(ctx.command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())


def _program(
    ctx: Context,
    url: UrlOption = None,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
    version: Annotated[bool, Option(("--version",), help="Print the version.", eager=_print_version)] = False,
    completion: Annotated[
        Literal["bash", "zsh", "fish"] | None,
        Option(
            help="Print the script that makes this shell complete commands and options.",
            eager=_print_completion,
        ),
    ] = None,
) -> None:
    ctx.obj = Session(url, token, account, as_json)


program = Group(
    PROGRAM,
    _program,
    _COMMANDS,
    help=_HELP,
    tables={
        "Exit codes of run, submit, wait and result": exits.OF_TASKS,
        "Exit codes of the other commands": exits.OF_OTHERS,
    },
)


def main() -> None:
    """Run the program and exit with one of the codes in ops.cli.exits."""
    streams.secure()
    try:
        code = _code()
        sys.stdout.flush()
    except streams.OutputFailed as failure:
        code = lost_output(failure)
    sys.exit(code)


def _code() -> int:
    try:
        code = program.main(prog_name=PROGRAM, standalone_mode=False)
    except click.Abort:
        return exits.INTERRUPTED
    except click.UsageError as error:
        error.show()
        command = error.ctx.command if error.ctx else None
        return exits.FAILED if isinstance(command, Command) and command.as_task else exits.USAGE
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
