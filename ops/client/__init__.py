"""The Python client of General Compute's native API, used by the command line, the demo and the benchmarks.

    from ops.client import Client

    with Client("http://127.0.0.1:8080") as client:
        with open("photo.jpg", "rb") as photo:
            with client.run("imgproc:1", ["thumbnail", "200x200"], body=photo) as output:
                for piece in output:
                    ...

Bodies stream in both directions at once and are never held in memory whole. Use one client per thread.
"""

from ops.client.body import Body
from ops.client.client import DEFAULT_URL, Client, Output
from ops.client.errors import (
    AnswerBroken,
    ApiProblem,
    BadAddress,
    ClientError,
    InputFailed,
    NotGeneralCompute,
    TaskFailed,
    TaskTimedOut,
    Unreachable,
)
from ops.client.live import LiveOutput
from ops.client.model import ENDED_STATES, AsyncOptions, Facts, Page, SyncOptions, Task, TaskOptions

__all__ = [
    "DEFAULT_URL",
    "ENDED_STATES",
    "AnswerBroken",
    "ApiProblem",
    "AsyncOptions",
    "BadAddress",
    "Body",
    "Client",
    "ClientError",
    "Facts",
    "InputFailed",
    "LiveOutput",
    "NotGeneralCompute",
    "Output",
    "Page",
    "SyncOptions",
    "Task",
    "TaskFailed",
    "TaskOptions",
    "TaskTimedOut",
    "Unreachable",
]
