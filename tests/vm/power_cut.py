"""In the virtual machine, around a power cut: sends tasks without end, or looks for those that were acknowledged.

    power_cut.py send                  prints `acknowledged ID BYTES DIGEST` for every 202, until the power is cut
    power_cut.py find < LINES          every task in these lines has succeeded, with its input as result

The set is at 127.0.0.1:8101, and its image ncat:1 copies standard input.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import threading
import urllib.request
from typing import IO

SET = "http://127.0.0.1:8101/v1"
# In the set's database; in a file beside it.
SIZES_BYTES = (1_000, 200_000)
CLIENTS = 4
DIGEST_BYTES = 8


def digest_of(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).hexdigest()


def ask(path: str, body: bytes | None = None, **headers: str) -> IO[bytes]:
    request = urllib.request.Request(SET + path, body, {"X-Account": "vm", **headers})
    answer: IO[bytes] = urllib.request.urlopen(request, timeout=300)
    return answer


def send(client: int) -> None:
    chance = random.Random(client)
    while True:
        body = chance.randbytes(chance.choice(SIZES_BYTES))
        with ask("/run/ncat:1", body, Prefer="respond-async") as answer:
            task = json.load(answer)["id"]
        print(f"acknowledged {task} {len(body)} {digest_of(body)}", flush=True)


def find() -> int:
    """How many of the acknowledged tasks are lost or wrong."""
    lines = [line.split() for line in sys.stdin if line.startswith("acknowledged ")]
    # The last line may have been cut as well.
    acknowledged = [line for line in lines if len(line) == 4 and len(line[3]) == 2 * DIGEST_BYTES]
    wrong = 0
    attempts: dict[int, int] = {}
    for _, task, size, digest in acknowledged:
        try:
            while True:
                with ask(f"/tasks/{task}?wait=30") as answer:
                    facts = json.load(answer)
                if facts["state"] not in ("queued", "running"):
                    break
            with ask(f"/tasks/{task}/stdout") as answer:
                result = answer.read()
        except OSError as error:
            print(f"{task}, {size} bytes: {error}")
            wrong += 1
            continue
        attempts[facts["attempts"]] = attempts.get(facts["attempts"], 0) + 1
        if facts["state"] != "succeeded" or digest_of(result) != digest:
            print(f"{task}, {size} bytes: {facts['state']}, {len(result)} bytes of result")
            wrong += 1
    print(f"{len(acknowledged)} acknowledged, {wrong} lost or wrong; by attempts: {attempts}")
    return wrong


if __name__ == "__main__":
    if sys.argv[1:] == ["send"]:
        for client in range(CLIENTS):
            threading.Thread(target=send, args=(client,)).start()
    else:
        sys.exit(1 if find() else 0)
