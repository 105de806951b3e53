"""The options of a task, shared by `run` and `submit`."""

from typing import Annotated, Literal

import typer

from ops.client import TaskOptions

_PANEL = "The task"

Image = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE", help="The image, e.g. ocr:1 or host:5000/acme/ocr@sha256:….", show_default=False
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARGS",
        help="Arguments for the algorithm, passed on untouched, options too. None: the image's own.",
        show_default=False,
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env", metavar="NAME=VALUE", help="Add to the environment (repeatable).", rich_help_panel=_PANEL
    ),
]
Name = Annotated[
    str | None, typer.Option(help="A label of your own to find the task by.", rich_help_panel=_PANEL)
]
TimeoutS = Annotated[
    float | None,
    typer.Option(
        help="Seconds that it may run: 60, at most 300 (submitted: 3600, 86400).", rich_help_panel=_PANEL
    ),
]
Cpu = Annotated[float | None, typer.Option(help="Cores, in hundredths.", rich_help_panel=_PANEL)]
MemoryMib = Annotated[int | None, typer.Option(help="Memory in MiB.", rich_help_panel=_PANEL)]
Isolation = Annotated[
    Literal["shared", "fresh"] | None,
    typer.Option(
        help="A slot reused by this account and image, or a container of its own.", rich_help_panel=_PANEL
    ),
]
CpuFeature = Annotated[
    list[str] | None,
    typer.Option(metavar="FLAG", help="A CPU flag it needs, e.g. avx2 (repeatable).", rich_help_panel=_PANEL),
]
OutputFile = Annotated[
    list[str] | None,
    typer.Option(
        "--output",
        metavar="PATH",
        help="A file it writes that is to be kept (repeatable).",
        rich_help_panel=_PANEL,
    ),
]
Priority = Annotated[
    Literal["normal", "spare"] | None,
    typer.Option(help="`spare` runs on left-over capacity and gives way.", rich_help_panel=_PANEL),
]


def environment(pairs: list[str] | None) -> dict[str, str]:
    """The mapping for --env. Raises BadParameter for a pair without `=` or name."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{pair!r} must look like NAME=VALUE", param_hint="--env")
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
    cpu_feature: list[str] | None,
    output: list[str] | None,
    priority: Literal["normal", "spare"] | None,
) -> TaskOptions:
    """The client's options for the command line's; `output` must be absolute paths."""
    for path in output or ():
        if not path.startswith("/"):
            raise typer.BadParameter(
                f"{path!r} must be an absolute path in the container", param_hint="--output"
            )
    return TaskOptions(
        env=environment(env),
        name=name,
        timeout_s=timeout_s,
        cpu=cpu,
        memory_mib=memory_mib,
        isolation=isolation,
        cpu_features=cpu_feature or (),
        outputs=output or (),
        priority=priority,
    )
