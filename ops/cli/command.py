"""Makes click commands from functions: the annotations of the parameters describe arguments and options.

    def hello(name: Annotated[str, Argument(metavar="NAME", help="Whom to greet.")]) -> int: ...

typer looks the same, but loads a data validator for each option, which takes longer than a whole run.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import click
from click import BadParameter, Context, UsageError

__all__ = ["Argument", "BadParameter", "Command", "Context", "Entry", "Group", "Option", "UsageError"]

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_EXAMPLES: Final = "Examples:"

F = TypeVar("F", bound=Callable[..., Any])


class Option(NamedTuple):
    """An option: its flags (none: the parameter's name with dashes), and its heading in the help.

    A list may be given several times, a bool is a flag, a Literal a choice. `min` and `max` bound a number. `eager`
    is called with the value as soon as it is seen, for options that end the program.
    """

    flags: tuple[str, ...] = ()
    help: str = ""
    metavar: str | None = None
    panel: str = "Options"
    min: float | None = None
    max: float | None = None
    eager: Callable[[Context, Any], None] | None = None


class Argument(NamedTuple):
    """A positional argument; with `existing` it is a file that must exist and be readable."""

    metavar: str
    help: str = ""
    existing: bool = False


class Entry(NamedTuple):
    """A command of a group: its name, its target as `module:name`, and its heading in the group's help."""

    name: str
    target: str
    panel: str = "Commands"


class Command(click.Command):
    """A click command whose help groups options under headings and prints examples unchanged.

    `as_task`: the exit code may be a task's own, so errors need a code of their own.
    """

    as_task = False

    @classmethod
    def of(cls, name: str, function: Callable[..., int], *, untouched: bool = False) -> Command:
        """Make the command that calls a function. `untouched`: pass on options after the first argument."""
        made = cls(
            name,
            callback=_caller(function),
            params=_parameters(function),
            help=inspect.cleandoc(function.__doc__ or ""),
            context_settings={**SETTINGS, "allow_interspersed_args": not untouched},
        )
        made.as_task = getattr(function, "as_task", False)
        return made

    def format_help_text(self, ctx: Context, formatter: click.HelpFormatter) -> None:
        _write_text(self.help or "", formatter)

    def format_arguments(self, ctx: Context, formatter: click.HelpFormatter) -> None:
        """Do nothing: `format_options` writes the arguments too."""

    def format_options(self, ctx: Context, formatter: click.HelpFormatter) -> None:
        _write_parameters(self, ctx, formatter)


class Group(click.Group):
    """Commands by name. A command's module is imported when it is called, or when the group's help lists it."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any] | None,
        entries: Sequence[Entry],
        *,
        help: str,
        tables: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    ) -> None:
        super().__init__(
            name,
            callback=_caller(function) if function else None,
            params=_parameters(function) if function else [],
            help=inspect.cleandoc(help),
            no_args_is_help=True,
            context_settings=SETTINGS,
        )
        self.tables = tables or {}
        self.entries = {entry.name: entry for entry in entries}

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, click.Command):
            return found
        return Command.of(entry.name, found, untouched=getattr(found, "untouched", False))

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            # Click would suggest only names of commands that are already loaded.
            raise click.NoSuchCommand(error.command_name, possibilities=self.entries, ctx=ctx) from None

    def format_help_text(self, ctx: Context, formatter: click.HelpFormatter) -> None:
        _write_text(self.help or "", formatter)

    def format_arguments(self, ctx: Context, formatter: click.HelpFormatter) -> None:
        """Do nothing: a group has no arguments."""

    def format_options(self, ctx: Context, formatter: click.HelpFormatter) -> None:
        _write_parameters(self, ctx, formatter)
        rows: dict[str, list[tuple[str, str]]] = {}
        for entry in self.entries.values():
            command = self.get_command(ctx, entry.name)
            assert command is not None
            rows.setdefault(entry.panel, []).append((entry.name, _first_sentence(command.help or "")))
        width = max(len(name) for name in self.entries)
        for panel, lines in rows.items():
            with formatter.section(_bold(panel)):
                formatter.write_dl([(name.ljust(width), text) for name, text in lines])
        for heading, table in self.tables.items():
            with formatter.section(_bold(heading)):
                formatter.write_dl(table)


def untouched(function: F) -> F:
    """Mark a command that passes on everything after its first argument, options included."""
    function.untouched = True  # type: ignore[attr-defined]
    return function


def _caller(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function for click, which passes an empty tuple for a list that was not given, not the default."""
    wants_context = [name for name, kind in _hints(function).items() if kind is Context]
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }

    def call(**given: Any) -> Any:
        values = {
            name: defaults.get(name, [])
            if value == ()
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in given.items()
        }
        for name in wants_context:
            values[name] = click.get_current_context()
        return function(**values)

    return call


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


def _parameters(function: Callable[..., Any]) -> list[click.Parameter]:
    hints = _hints(function)
    found: list[click.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if get_origin(hint) is not Annotated:
            assert hint is Context, f"{function.__name__}: {name} has neither an Option nor an Argument"
            continue
        kind, about = get_args(hint)[:2]
        found.append(_parameter(name, kind, about, parameter.default))
    return found


def _parameter(name: str, hint: Any, about: Option | Argument, default: Any) -> click.Parameter:
    required = default is inspect.Parameter.empty
    kind, many = _plain(hint)
    # Click has its own marker for "not given", which is not None, so no default is passed.
    more: dict[str, Any] = {} if required or default is None else {"default": default}
    if isinstance(about, Argument):
        return click.Argument(
            [name],
            type=_type(kind, about),
            nargs=-1 if many else 1,
            required=required,
            metavar=about.metavar,
            help=about.help,
            **more,
        )
    if kind is bool:
        more = {"is_flag": True, "default": default}
    else:
        more |= {"type": _type(kind, about), "multiple": many}
    made = _Option(
        [*(about.flags or ("--" + name.replace("_", "-"),)), name],
        help=about.help,
        metavar=about.metavar,
        required=required,
        show_default=kind is not bool and default not in (None, ""),
        is_eager=about.eager is not None,
        expose_value=about.eager is None,
        callback=None if about.eager is None else _ending(about.eager),
        **more,
    )
    made.panel = about.panel
    return made


class _Range(click.FloatRange):
    """A range of numbers. Click's own lets "nan" through, which is neither below nor above a bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return found


class _Option(click.Option):
    panel = "Options"


def _ending(act: Callable[[Context, Any], None]) -> Callable[[Context, click.Parameter, Any], None]:
    def callback(ctx: Context, _: click.Parameter, value: Any) -> None:
        if value and not ctx.resilient_parsing:
            act(ctx, value)
            ctx.exit()

    return callback


def _plain(hint: Any) -> tuple[Any, bool]:
    """Return a hint without `| None` and `list[…]`, and whether it was a list."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is list:
        return get_args(hint)[0], True
    return hint, False


def _type(kind: Any, about: Option | Argument) -> click.ParamType[Any]:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is Path:
        existing = isinstance(about, Argument) and about.existing
        return click.Path(exists=existing, dir_okay=not existing, readable=existing, path_type=Path)
    if isinstance(about, Option) and (about.min is not None or about.max is not None):
        ranged = click.IntRange if kind is int else _Range
        return ranged(min=about.min, max=about.max)  # type: ignore[arg-type]
    return {str: click.STRING, int: click.INT, float: click.FLOAT}[kind]


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _first_sentence(text: str) -> str:
    words = " ".join(text.partition("\n\n")[0].split())
    return words.partition(". ")[0].rstrip(".")


def _write_text(text: str, formatter: click.HelpFormatter) -> None:
    about, _, examples = text.partition(_EXAMPLES)
    with formatter.indentation():
        for paragraph in about.strip().split("\n\n"):
            formatter.write_paragraph()
            formatter.write_text(" ".join(paragraph.split()))
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    if lines:
        formatter.write_paragraph()
        formatter.write(_bold(_EXAMPLES) + "\n")
        # Not wrapped: a command broken over two lines could not be copied.
        formatter.write("".join(f"  {line}\n" for line in lines))


def _write_parameters(command: click.Command, ctx: Context, formatter: click.HelpFormatter) -> None:
    rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        if isinstance(parameter, click.Argument):
            rows["Arguments"].append((parameter.metavar or "", parameter.help or ""))
        elif record := parameter.get_help_record(ctx):
            rows.setdefault(getattr(parameter, "panel", "Options"), []).append(record)
    for panel, lines in rows.items():
        if lines:
            with formatter.section(_bold(panel)):
                formatter.write_dl(lines)
