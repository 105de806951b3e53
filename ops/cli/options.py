"""The options of a task, shared by `run` and `submit`."""

from typing import Annotated, Final, Literal

from ops.cli.command import Argument, BadParameter, Option
from ops.client import TaskOptions

_PANEL: Final = "The task"

Image = Annotated[
    str,
    Argument(
        metavar="IMAGE",
        help="The image, e.g. ocr:1 or host:5000/acme/ocr@sha256:….",
    ),
]
Arguments = Annotated[
    list[str] | None,
    Argument(
        metavar="[ARGS]…",
        help="Arguments for the algorithm, options included, passed on unchanged. None: the image's own.",
    ),
]
Env = Annotated[
    list[str] | None,
    Option(("--env",), metavar="NAME=VALUE", help="Add to the environment (repeatable).", panel=_PANEL),
]
Name = Annotated[str | None, Option(help="A label to find the task by.", panel=_PANEL)]
TimeoutS = Annotated[
    float | None,
    Option(
        help="Time limit in seconds: 60, at most 300 (submitted tasks: 3600, at most 86400).", panel=_PANEL
    ),
]
Cpu = Annotated[float | None, Option(help="Cores, in hundredths.", panel=_PANEL)]
MemoryMib = Annotated[int | None, Option(help="Memory in MiB.", panel=_PANEL)]
Isolation = Annotated[
    Literal["shared", "fresh"] | None,
    Option(
        help="`shared`: a slot that this account and image reuse; `fresh`: a new container.", panel=_PANEL
    ),
]
Priority = Annotated[
    Literal["normal", "spare"] | None,
    Option(
        help="`spare`: run on what normal tasks leave, and give way to them at once; it is not billed then.",
        panel=_PANEL,
    ),
]
CpuFeature = Annotated[
    list[str] | None,
    Option(metavar="FLAG", help="A CPU flag it needs, e.g. avx2 (repeatable).", panel=_PANEL),
]
KeptFile = Annotated[
    list[str] | None,
    Option(
        ("--output",),
        metavar="PATH",
        help="Keep this file that the algorithm writes; fetch it with `gcompute result --file` (repeatable).",
        panel=_PANEL,
    ),
]
BroughtFile = Annotated[
    list[str] | None,
    Option(
        ("--output",),
        metavar="PATH[:LOCAL]",
        help="Download this file that the algorithm writes: to LOCAL, else under its own name into the current folder; "
        "an existing file is replaced (repeatable).",
        panel=_PANEL,
    ),
]


def environment(pairs: list[str] | None) -> dict[str, str]:
    """Parse the values of --env. Raises BadParameter for a pair without `=` or without a name."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise BadParameter(f"{pair!r} must look like NAME=VALUE", param_hint="--env")
        found[name] = value
    return found


def task_options(
    *,
    env: list[str] | None,
    name: str | None,
    timeout_s: float | None,
    cpu: float | None,
    memory_mib: int | None,
    isolation: Literal["shared", "fresh"] | None,
    priority: Literal["normal", "spare"] | None,
    cpu_feature: list[str] | None,
    output: list[str] | None,
) -> TaskOptions:
    """Turn command-line options into the client's; each `output` must be an absolute path."""
    for path in output or ():
        if not path.startswith("/"):
            raise BadParameter(f"{path!r} must be an absolute path in the container", param_hint="--output")
    return TaskOptions(
        env=environment(env),
        name=name,
        timeout_s=timeout_s,
        cpu=cpu,
        memory_mib=memory_mib,
        isolation=isolation,
        priority=priority,
        cpu_features=cpu_feature or (),
        outputs=output or (),
    )
