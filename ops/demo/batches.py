"""The demo's batches: a sweep of one parameter over one picture, and a folder of scanned pages.

Both are what `gcompute map` does for anybody: one call, no loop in the client, one folder of results.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from PIL import Image

from ops.demo.errors import DemoFailed
from ops.setup.engine import ROOT

SIZES: Final = (32, 64, 100, 160, 200, 320)
"""Longest sides of the thumbnails of the sweep, in pixels."""
PAGES: Final = 4


class MappedBatches:
    """Runs batches through the API at `url`; inputs and results lie in `folder`."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder

    def sweep(self, photograph: Path) -> tuple[str, Path]:
        """Make a thumbnail of each size. Returns the line to type, and the folder of results. Raises DemoFailed."""
        lines, results = self._folder / "sweep.jsonl", self._folder / "sizes"
        picture = base64.b64encode(photograph.read_bytes()).decode()
        with lines.open("w") as file:
            for size in SIZES:
                words = ["thumbnail", f"{size}x{size}"]
                line = {"name": f"{size}.jpg", "args": words, "input_base64": picture}
                file.write(json.dumps(line) + "\n")
        with lines.open("rb") as source:
            self._map(["imgproc:1", "-", "-o", str(results)], results, source.fileno())
        for size in SIZES:
            with Image.open(results / f"{size}.jpg") as small:
                if max(small.size) != size:
                    raise DemoFailed(f"{size}.jpg of the sweep is {small.size[0]} x {small.size[1]}")
        return self._line("imgproc:1", "-", "-o", _short(results)) + f" < {_short(lines)}", results

    def scans(self, page: Path) -> tuple[str, Path]:
        """Read the pages of a folder. Returns the line to type, and the folder of results. Raises DemoFailed."""
        scans, results = self._folder / "scans", self._folder / "texts"
        shutil.rmtree(scans, ignore_errors=True)
        scans.mkdir(parents=True)
        for number in range(1, PAGES + 1):
            shutil.copy(page, scans / f"page-{number}.png")
        self._map(["ocr:1", str(scans), "-o", str(results), "--", "-l", "eng"], results, subprocess.DEVNULL)
        for number in range(1, PAGES + 1):
            if "either object or background" not in (results / f"page-{number}.png").read_text():
                raise DemoFailed(f"the text of page {number} lacks the page's third line")
        return self._line("ocr:1", _short(scans), "-o", _short(results), "--", "-l", "eng"), results

    def _map(self, words: list[str], results: Path, stdin: int) -> None:
        # An earlier demo's results would be taken for those of this call.
        shutil.rmtree(results, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli.main", "map", *words],
            cwd=ROOT,
            env=os.environ | {"GC_URL": self._url},
            stdin=stdin,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise DemoFailed(f"gcompute map {' '.join(words)}: {done.stdout}{done.stderr}".strip())

    def _line(self, *words: str) -> str:
        return f"GC_URL={self._url} {shlex.join(['.venv/bin/gcompute', 'map', *words])}"


def _short(path: Path) -> str:
    """Return a path as typed: relative to the folder in which the demo runs."""
    return os.path.relpath(path)
