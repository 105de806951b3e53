"""Turns the bytes of a YAML file into its root node. Bytes that are not YAML are one mistake, with its place and what
to do."""

from __future__ import annotations

from typing import Final

import yaml

from router.config.yaml_nodes import ConfigError, Mistake, Node

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: ten times as fast


def root_of(text: bytes) -> Node | None:
    """The one document's root; None: the file is empty. Raises `ConfigError`."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8")
        raise _at(*_end(before), "the file must be UTF-8 text; the bytes here are not") from None
    try:
        return yaml.compose(decoded, Loader=_LOADER)
    except yaml.reader.ReaderError:
        found = yaml.reader.Reader.NON_PRINTABLE.search(decoded)
        if found is None:
            raise _at(1, 1, "not valid YAML: it cannot be read as text") from None
        place = _end(decoded[: found.start()])
        said = f"the character U+{ord(found[0]):04X} is not allowed in YAML; remove it"
        raise _at(*place, f"not valid YAML: {said}, or save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_mistake(error, decoded)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise _at(1, 1, f"not valid YAML: {type(error).__name__}") from None


def _mistake(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    """Return the YAML parser's complaint, with advice."""
    said = " ".join(filter(None, (error.context, error.problem)))
    lines = text.splitlines() or [""]
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    if line >= len(lines):  # The end of the text counts as a line of its own.
        line, column = len(lines) - 1, len(lines[-1])
    here = lines[line][column : column + 1]
    if here == "\t":
        advice = "indent with spaces, not tabs"
    elif here in ("@", "`", "%"):
        advice = f"put quotes around the text that begins with {here}"
    elif "another document" in said:
        advice = "remove the line `---` and one of the two parts"
    elif "<document start>" in said:
        advice = "nothing may follow the line `...`; remove it"
    elif "undefined alias" in said:
        advice = "name what is meant before it, as in `&name`, or put quotes around the *"
    elif "quoted" in said and error.context_mark is not None:
        advice = f"close the quote that opens on line {error.context_mark.line + 1}"
    elif "flow" in said and (opened := _open_bracket(text)) is not None:
        advice = f"close the bracket that opens on line {opened}, or a quote in it, or add a comma"
    else:
        advice = "look at the indentation, colons and quotes here"
    return Mistake(line + 1, column + 1, f"not valid YAML: {said}; {advice}")


def _open_bracket(text: str) -> int | None:
    """The line of the innermost bracket that is open where the text stops being YAML. The parser's own word on it may
    be the place where it gave up."""
    lines: list[int | None] = []
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                mark = event.start_mark
                lines.append(mark.line + 1 if event.flow_style and mark is not None else None)
            elif isinstance(event, yaml.CollectionEndEvent):
                lines.pop()
    except yaml.YAMLError:
        pass
    return lines[-1] if lines else None


def _end(before: str) -> tuple[int, int]:
    """Return line and column of the character after this text."""
    lines = f"{before}.".splitlines()
    return len(lines), len(lines[-1])


def _at(line: int, column: int, message: str) -> ConfigError:
    return ConfigError([Mistake(line, column, message)])
