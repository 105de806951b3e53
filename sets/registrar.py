"""Runs a registrar: reads its YAML file, and serves until a signal stops it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from scheduler.launchers.nomad.node_files import guest_name, seccomp_name
from scheduler.launchers.nomad.registrar import Registrar
from scheduler.launchers.nomad.settings import RegistrarSettings, SettingsError
from scheduler.launchers.seccomp import profile_json
from sets import log_lines
from sets.guest import GUEST_BINARY, unusable
from sets.yaml_file import ConfigError, parse_as, text_of


def load(path: Path) -> RegistrarSettings:
    """Read a registrar's YAML file. Raises `ConfigError` with the file, the line or field, and the mistake."""
    return parse_as(RegistrarSettings, text_of(path), str(path), "sets/docs/registrar.md")


def main(path: Path) -> int:
    """Serve the set that the file at `path` names; return an exit status."""
    try:
        settings = load(path)
        log_lines.configure(settings.log_level)
        if problem := unusable():
            print(f"gcompute registrar: {problem}", file=sys.stderr)
            return 70
        registrar = Registrar(settings, guest_name(GUEST_BINARY.read_bytes()), seccomp_name(profile_json()))
    except (ConfigError, SettingsError) as error:
        print(f"gcompute registrar: {error}", file=sys.stderr)
        return 78
    try:
        asyncio.run(_serve(registrar))
    except OSError as error:
        print(f"gcompute registrar: socket: {settings.socket}: {error.strerror}", file=sys.stderr)
        return 74
    return 0


async def _serve(registrar: Registrar) -> None:
    serving = asyncio.create_task(registrar.serve())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        if not serving.cancelled():
            raise
