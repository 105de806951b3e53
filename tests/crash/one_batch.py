"""A batch that is expanded and run while the rounds of a chapter kill its set: each input has one result of its own."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import httpx

from tests.cluster.parts import until

ACCOUNT = "batch"
INPUTS = 300
REST_MS = 300
"""How long each program sleeps, so that the batch lasts for much of a chapter."""
LARGE_BYTES = 50_000
"""More than a store keeps in a task's row."""
RETRIES = 5
"""The platform gives a task up after three lost attempts; so many times such ones are run again."""
OVER_S = 600.0


def input_of(number: int) -> str:
    return f"input {number} " + "x" * (LARGE_BYTES if number % 10 == 0 else 0)


class OneBatch:
    """The batch, as its client sees it through the set at `url`. `image` is that of `tests/cluster/attempt.c`."""

    def __init__(self, url: str, image: str) -> None:
        self._url = f"{url}/v1/batches"
        lines = [{"input": input_of(number), "name": f"{number}"} for number in range(INPUTS)]
        answer = self._call(
            "POST",
            f"/{image}",
            # It takes what the other clients leave: the chapter is about their tasks, too.
            params=[("priority", "spare"), *(("arg", word) for word in ("batch", "1", str(REST_MS)))],
            content="".join(json.dumps(line) + "\n" for line in lines),
            headers={"Content-Type": "application/jsonl"},
        )
        self._id = answer.json()["id"]

    def faults(self) -> list[str]:
        """Wait for its end, and say what is wrong with its results. What the platform gave up is run again."""
        for _ in range(RETRIES):
            results = self._results()
            failures = [name for name in results if name.endswith(".error.json")]
            if not failures:
                return _wrong(results)
            for name in failures:
                task = json.loads(results[name])
                if task["reason"] != "platform":
                    return [f"batch: input {name}: {task['state']}, {task['reason']}: {task['detail']}"]
            self._call("POST", f"/{self._id}/retry")
        return [f"batch: after {RETRIES} retries, {len(failures)} inputs have no result"]

    def _results(self) -> dict[str, bytes]:
        def over() -> bool:
            return self._call("GET", f"/{self._id}?wait=5").json()["ended_at"] is not None

        until(over, "the batch is over", OVER_S)
        found: dict[str, bytes] = {}
        data = io.BytesIO(self._call("GET", f"/{self._id}/results").content)
        with tarfile.open(fileobj=data) as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                assert file is not None
                assert entry.name not in found, f"batch: {entry.name} has two results"
                found[entry.name] = file.read()
        return found

    def _call(self, method: str, path: str, **call: Any) -> httpx.Response:
        headers = {"X-Account": ACCOUNT, **call.pop("headers", {})}
        answer = httpx.request(method, self._url + path, headers=headers, timeout=60, trust_env=False, **call)
        assert answer.status_code in (200, 202), answer.text
        return answer


def _wrong(results: dict[str, bytes]) -> list[str]:
    """Compare each output with its input: whole, of one attempt, and of this input."""
    names = {f"{number}" for number in range(INPUTS)}
    wrong = [f"batch: {name} has no result" for name in sorted(names - results.keys())]
    wrong += [f"batch: {name} is nobody's result" for name in sorted(results.keys() - names)]
    for number in range(INPUTS):
        lines = results.get(f"{number}", b"").split(b"\n")
        same = len(lines) == 4 and lines[0][:16] == lines[2][:16] and lines[1] == input_of(number).encode()
        if not same and f"{number}" in results:
            wrong.append(f"batch: {number} has a mixture, or another's result")
    return wrong
