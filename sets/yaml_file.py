"""Reads a configuration file: YAML, strictly, into a record."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from sets.mistakes import in_words

S = TypeVar("S", bound=msgspec.Struct)


class ConfigError(Exception):
    """A configuration is not valid; the message names the file, the line or field, and the mistake."""


def text_of(path: Path) -> str:
    """Return the file's text. Raises `ConfigError`."""
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error


def parse_as(record: type[S], text: str, source: str, reference: str) -> S:
    """Return the text as a record. Raises `ConfigError`; `source` names the text, `reference` the page about it."""
    try:
        # The loader derives from SafeLoader.
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {_place_and_mistake(error)}") from error
    if data is None:
        raise ConfigError(f"{source}: the file is empty; {reference} lists the settings")
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must hold settings, each as `name: value`; {reference} lists them")
    try:
        return msgspec.convert(data, record)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {in_words(error, record)}; see {reference}") from error


def _place_and_mistake(error: yaml.YAMLError) -> str:
    """Return the mistake in one line. PyYAML's own text has several, and calls the file `<unicode string>`."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1}: {error.reason}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        mistake = ", ".join(part for part in (error.context, error.problem) if part)
        return f"line {mark.line + 1}, column {mark.column + 1}: {mistake}"
    return str(error)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that appears twice, as the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
