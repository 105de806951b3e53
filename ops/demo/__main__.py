"""``python -m ops.demo``: runs the demo, and restores the stack and its weights afterwards, also on Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from ops.client import ClientError
from ops.demo.story import Story
from ops.demo.weights import WeightsFile
from ops.images.builder import NAMES, Builder
from ops.local.parts import Ports
from ops.local.stack import Stack
from ops.setup import engine
from ops.setup.engine import ROOT
from ops.setup.errors import OpsError


def main() -> int:
    """Run the demo. Returns the exit code: 0, 1 if a step failed, 130 if it was interrupted."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    print("General Compute, the demo: real pictures through a router and two sets", flush=True)
    try:
        ports = Ports.of(os.environ)
        stack = Stack(ports)
        was_up, had_engine = stack.runs, bool(engine.running())
        host = engine.up()
        os.environ["DOCKER_HOST"] = host
    except OpsError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    weights_file = WeightsFile(ROOT / "ops/local/router.yaml")
    story = Story(ports)
    try:
        Builder(host).build(NAMES)
        stack.up()
        story.tell(weights_file)
        code = 0
    except (OpsError, ClientError) as error:
        print(f"\ndemo: stopped early: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; cleaning up", file=sys.stderr)
        code = 130
    finally:
        _undisturbed(weights_file.restore)
        if not was_up:
            _undisturbed(lambda: stack.down(keep_engine=had_engine))
    if code == 0:
        print(f"\nSummary, after {time.monotonic() - began:.0f} s")
        for what, result in story.summary:
            print(f"  {what:42} {result}")
        print("  pictures and text lie in var/demo/; they were made from var/pictures/")
        if was_up:
            print("  the stack stays up, as it was before; make down stops it")
        else:
            print("  the stack is down again, as it was before; make up, then paste any line after a $")
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _undisturbed(clean_up: Callable[[], object]) -> None:
    """Ignore a second Ctrl-C, which would interrupt the clean-up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    clean_up()


if __name__ == "__main__":
    sys.exit(main())
