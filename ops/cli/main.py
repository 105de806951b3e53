"""The program `gcompute`: its commands on one screen. Heavy parts are imported by the command that needs them."""

import sys
from typing import Annotated, cast

import typer

from ops.cli import exits, router, run, serve, tasks
from ops.cli import token as tokens
from ops.cli.session import AccountOption, JsonOption, Session, TokenOption, UrlOption

PROGRAM = "gcompute"

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

# What stands after IMAGE is the algorithm's: its options must not be taken for ours.
_UNTOUCHED = {"allow_interspersed_args": False}

app.command("run", context_settings=_UNTOUCHED)(run.run)
app.command("submit", context_settings=_UNTOUCHED)(run.submit)
app.command("status")(tasks.status)
app.command("result")(tasks.result)
app.command("wait")(tasks.wait)
app.command("cancel")(tasks.cancel)
app.command("tasks")(tasks.tasks)
app.command("set", rich_help_panel="Start a part of the service")(serve.start_set)
app.add_typer(router.app, name="router", rich_help_panel="Start a part of the service")
app.command("token", rich_help_panel="Start a part of the service")(tokens.token)


# What BadParameter and every other complaint about the command line derive from; typer does not export it.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("general-compute")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"{PROGRAM} {number}")
        raise typer.Exit


@app.callback()
def program(
    ctx: typer.Context,
    url: UrlOption = None,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Run container images as functions: standard input in, standard output out, on General Compute.

    Examples:

        gcompute run imgproc:1 thumbnail 200x200 < photo.jpg > small.jpg

        gcompute submit ocr:1 -l eng < page.png

        gcompute tasks --state running
    """
    ctx.obj = Session(url, token, account, as_json)


def main() -> None:
    """Run the program and exit with the code that ops.cli.exits documents."""
    try:
        code = app(prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort:
        code = exits.INTERRUPTED
    except _UsageError as error:
        error.show()
        code = exits.USAGE
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
