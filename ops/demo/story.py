"""The demo's steps, in order. Each prints what it does, the equivalent curl line, and the result."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from PIL import Image

from ops.client import Client, Task
from ops.demo.batches import PAGES, SIZES, MappedBatches
from ops.demo.errors import DemoFailed
from ops.demo.load import Load, run_small_tasks
from ops.demo.weights import Weights, WeightsFile, flow, other_weights
from ops.images import pictures
from ops.local.parts import HOST, Ports
from ops.setup.engine import ROOT

SMALL_TASKS: Final = 1000
SMALL_IMAGE: Final = "cat:1"
OUTPUT_FOLDER: Final = ROOT / "var/demo"
# A saved edit takes effect within 2 s; a longer wait is reported as a fault.
EDIT_TIMEOUT_S: Final = 10

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Story:
    """A run of the demo, against a stack that is up."""

    def __init__(self, ports: Ports) -> None:
        self.url = ports.router_url
        self.status_url = f"http://{HOST}:{ports.admin}/status"
        self.summary: list[tuple[str, str]] = []
        self._step = 0
        OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)

    def tell(self, weights_file: WeightsFile) -> None:
        """Run all steps; raises DemoFailed or ClientError at the first that fails."""
        self.pictures()
        self._batches()
        self._split("which set runs them is the router's choice, by the weights in its YAML", SMALL_TASKS)
        self._change_weights(weights_file)

    def pictures(self) -> None:
        """Run the steps that need one set: pictures and a page."""
        photograph = pictures.photograph()
        self._picture("A thumbnail", ("thumbnail", "200x200"), photograph, "thumbnail.jpg", _fits_200)
        self._picture("The same picture as PNG", ("convert", "png"), photograph, "converted.png", _is_png)
        self._picture("Turned by 90 degrees", ("rotate", "90"), photograph, "rotated.jpg", _sides_swapped)
        self._picture(
            "With a watermark", ("watermark", "General Compute"), photograph, "watermarked.jpg", _differs
        )
        self._page()

    def _picture(
        self,
        title: str,
        arguments: tuple[str, ...],
        source: Path,
        target_name: str,
        check: Callable[[Path, Path], str],
    ) -> None:
        target = OUTPUT_FOLDER / target_name
        self._title(f"{title}, synchronously: the answer's body is the picture")
        self._curl(
            *("--data-binary", f"@{_short(source)}"),
            self._run_url("imgproc:1", arguments),
            "-o",
            _short(target),
        )
        began = time.perf_counter()
        with Client(self.url) as client, source.open("rb") as body:
            with client.run("imgproc:1", arguments, body=body) as output, target.open("wb") as file:
                file.writelines(output)
            took_ms = 1000 * (time.perf_counter() - began)
            # A short answer has the task's facts in headers; a longer one has them at the task's URL.
            task = client.task(output.task_id or "")
        if problem := check(source, target):
            raise DemoFailed(f"{_short(target)}: {problem}")
        self._say(f"{_short(source)}: {_about(source)}")
        self._say(f"{_short(target)}: {_about(target)}")
        result = f"set {output.set_name}, {took_ms:.0f} ms, {_cpu_and_start(task)}"
        self._say(result)
        self.summary.append((f"imgproc:1 {' '.join(arguments)}", f"{result} -> {_short(target)}"))

    def _page(self) -> None:
        source, target = pictures.page(), OUTPUT_FOLDER / "page.txt"
        self._title("A scanned page becomes text, asynchronously: id, status, result")
        run = self._run_url("ocr:1", ("-l", "eng"))
        self._curl("-H", "Prefer: respond-async", "--data-binary", f"@{_short(source)}", run)
        with Client(self.url) as client, source.open("rb") as body:
            task = client.submit("ocr:1", ("-l", "eng"), body=body)
            task_id = task["id"]
            self._say(f"202: task {task_id} is {task['state']}, on the disk of set {task['set']}")
            self._curl(f"{self.url}/v1/tasks/{task_id}?wait=30")
            self._say(f"200: {client.task(task_id)['state']}")
            task = client.wait(task_id, timeout_s=120)
            self._say(f"200: {task['state']}")
            if task["state"] != "succeeded":
                raise DemoFailed(f"task {task_id} ended as {task['state']}: {task.get('stderr_head')}")
            self._curl(f"{self.url}/v1/tasks/{task_id}/stdout", "-o", _short(target))
            with target.open("wb") as file:
                file.writelines(client.result(task_id))
        text = target.read_text()
        if "unambiguously as either object or background" not in text:
            raise DemoFailed(f"{_short(target)}: the page's third line is not in it")
        for line in [line for line in text.splitlines() if line.strip()][:5]:
            self._say(f"  | {line}")
        result = f"set {task['set']}, {(task['duration_us'] or 0) / 1000:.0f} ms, {_cpu_and_start(task)}"
        self._say(result)
        self.summary.append(("ocr:1 -l eng, async", f"{result} -> {_short(target)}"))

    def _batches(self) -> None:
        batches = MappedBatches(self.url, OUTPUT_FOLDER)
        self._title(f"A sweep: one picture in {len(SIZES)} sizes, as one batch of JSON lines")
        began = time.perf_counter()
        line, results = batches.sweep(pictures.photograph())
        self._mapped(
            f"imgproc:1, a sweep over {len(SIZES)} sizes", line, results, time.perf_counter() - began
        )
        self._title(f"A folder of {PAGES} scanned pages becomes a folder of texts, as one batch")
        began = time.perf_counter()
        line, results = batches.scans(pictures.page())
        self._mapped(f"ocr:1, a folder of {PAGES} pages", line, results, time.perf_counter() - began)

    def _mapped(self, what: str, line: str, results: Path, took_s: float) -> None:
        self._line(f"$ {line}")
        names = sorted(path.name for path in results.iterdir() if not path.name.startswith("."))
        self._say(f"{_short(results)}: {', '.join(names)}")
        self.summary.append((what, f"{took_s:.1f} s -> {_short(results)}"))

    def _split(self, title: str, count: int) -> None:
        weights = self._weights_in_force()
        self._title(f"{count:,} small tasks: {title}")
        one = shlex.join(
            ["curl", "-sS", "-o", "/dev/null", "-w", r"%header{x-set}\n", "--data-binary", "hello"]
        )
        url = self._run_url(SMALL_IMAGE, ())
        self._line(f"$ for i in $(seq 100); do {one} {url}; done | sort | uniq -c")
        self._say(f"weights in force: {flow(weights)}")
        load = run_small_tasks(self.url, SMALL_IMAGE, count)
        if load.failures:
            raise DemoFailed(
                f"{len(load.failures)} of {count} small tasks failed; the first: {load.failures[0]}"
            )
        for name, percent in weights.items():
            self._say(
                f"set {name}: tasks {load.sets[name]:4}, {load.percent(name):4.1f} %  {_bar(load.percent(name))}"
            )
            # Five standard deviations: chance alone looks like a fault once in two million demos.
            chance = 5 * math.sqrt(percent * (100 - percent) / count)
            if abs(load.percent(name) - percent) > chance:
                raise DemoFailed(
                    f"set {name} ran {load.percent(name):.1f} %, by the weights {percent:g} % +- {chance:.1f}"
                )
        latency = f"p50 {load.quantile_ms(0.5):.1f} ms, p99 {load.quantile_ms(0.99):.1f} ms"
        self._say(f"{latency}, {load.per_second:.0f} tasks/s from 4 clients, cold starts: {load.cold_starts}")
        self.summary.append(
            (f"{count:,} small tasks at {flow(weights)}", f"{_shares(load, weights)}; {latency}")
        )

    def _change_weights(self, weights_file: WeightsFile) -> None:
        before = self._weights_in_force()
        wanted = other_weights(before)
        path = _short(weights_file.path)
        self._title(f"Other weights: {flow(wanted)} saved in {path}")
        self._line("$ " + shlex.join(["sed", "-i", f"s/weights: {{.*}}/weights: {flow(wanted)}/", path]))
        began = time.monotonic()
        weights_file.change(wanted)
        while self._weights_in_force() != wanted:
            if time.monotonic() - began > EDIT_TIMEOUT_S:
                raise DemoFailed(
                    f"the router has not loaded them after {EDIT_TIMEOUT_S} s; see var/log/router.log"
                )
            time.sleep(0.05)
        self._say(f"in force after {time.monotonic() - began:.1f} s, with no connection lost")
        self._split("again, by the new weights", SMALL_TASKS)
        if not weights_file.restore():
            self._say(f"{path} was edited by somebody else meanwhile, and is not restored")
            return
        while self._weights_in_force() != before and time.monotonic() - began < 3 * EDIT_TIMEOUT_S:
            time.sleep(0.05)
        self._say(f"{path} is as it was: {flow(self._weights_in_force())}")

    def _weights_in_force(self) -> dict[str, float]:
        with _opener.open(self.status_url, timeout=5) as answer:
            sets = json.load(answer)["sets"]
        return {name: float(each["weight"]) for name, each in sets.items()}

    def _run_url(self, image: str, arguments: tuple[str, ...]) -> str:
        query = urlencode([("arg", argument) for argument in arguments])
        return f"{self.url}/v1/run/{image}" + (f"?{query}" if query else "")

    def _title(self, title: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {title}", flush=True)

    def _curl(self, *arguments: str) -> None:
        self._line("$ " + shlex.join(["curl", "-sS", *arguments]))

    def _say(self, text: str) -> None:
        self._line(f"  {text}")

    def _line(self, text: str) -> None:
        print(f"   {text}", flush=True)


def _short(path: Path) -> str:
    """Return a path as typed: relative to the folder in which the demo runs."""
    return os.path.relpath(path)


def _about(path: Path) -> str:
    with Image.open(path) as picture:
        return f"{picture.format} {picture.width} x {picture.height}, {path.stat().st_size:,} bytes"


def _cpu_and_start(task: Task) -> str:
    start = "cold start" if task["cold_start"] else "warm slot"
    return f"{(task['cpu_us'] or 0) / 1000:.0f} ms of CPU, {start}"


def _bar(percent: float) -> str:
    return "#" * max(1, round(percent / 2.5)) if percent else ""


def _shares(load: Load, weights: Weights) -> str:
    return ", ".join(f"{name} {load.percent(name):.1f} %" for name in weights)


def _fits_200(source: Path, target: Path) -> str:
    with Image.open(target) as small:
        return "" if max(small.size) == 200 else f"{small.size} is no thumbnail of 200x200"


def _is_png(source: Path, target: Path) -> str:
    with Image.open(source) as before, Image.open(target) as after:
        return (
            ""
            if (after.format, after.size) == ("PNG", before.size)
            else f"{after.format} {after.size} is not that PNG"
        )


def _sides_swapped(source: Path, target: Path) -> str:
    with Image.open(source) as before, Image.open(target) as after:
        return "" if after.size == before.size[::-1] else f"{after.size} is not {before.size} turned"


def _differs(source: Path, target: Path) -> str:
    with Image.open(source) as before, Image.open(target) as after:
        same = after.size != before.size or after.tobytes() == before.tobytes()
        return "it has no watermark" if same else ""
