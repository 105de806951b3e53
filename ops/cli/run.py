"""`gcompute run` and `gcompute submit`: send standard input to a task, and its output to standard output."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from ops.cli import exits, options, report
from ops.cli.command import Option, untouched
from ops.cli.downloads import bring, wanted
from ops.cli.session import Session, ends_as_task
from ops.cli.streams import write_out
from ops.cli.waiting import follow
from ops.client import Body, Client, ClientError, InputFailed, Output, Task, TaskFailed

NoStdin = Annotated[
    bool, Option(("--no-stdin", "-n"), help="Send an empty input; do not read standard input.")
]


@untouched
@ends_as_task
def run(
    session: Session,
    image: options.Image,
    args: options.Arguments = None,
    verbose: Annotated[
        bool, Option(("--verbose", "-v"), help="Show the task's facts and stderr on stderr.")
    ] = False,
    no_stdin: NoStdin = False,
    stream: Annotated[
        bool,
        Option(("--stream",), help="Deliver output from its first byte; do not hold back the first 64 KiB."),
    ] = False,
    queue_timeout_s: Annotated[
        float | None, Option(help="Seconds to wait for a free slot (10).", panel="The task")
    ] = None,
    env: options.Env = None,
    name: options.Name = None,
    timeout_s: options.TimeoutS = None,
    cpu: options.Cpu = None,
    memory_mib: options.MemoryMib = None,
    isolation: options.Isolation = None,
    priority: options.Priority = None,
    cpu_feature: options.CpuFeature = None,
    output: options.BroughtFile = None,
) -> int:
    """Run an image like a local program, with our standard input and output, and exit with its code.

    Put gcompute's options before IMAGE; everything after IMAGE belongs to the algorithm. Input and output stream.
    A terminal is read until Ctrl-D, as `cat` does; -n sends nothing. Ctrl-C cancels the task.

    Exit codes: the task's own, unchanged; 128+n for signal n; 124 timed out; 125 if the service or the call failed, not
    the task. `gcompute --help` lists them all.

    Examples:

        gcompute run imgproc:1 thumbnail 200x200 < photo.jpg > small.jpg

        gcompute run -v --timeout-s 120 ocr:1 -l eng < page.png

        tar c src | gcompute run --env LEVEL=9 packer:2 > src.packed

        gcompute run --output /tmp/paper.pdf:draft.pdf --output /tmp/paper.log tex:1 < paper.tex
    """
    files = wanted(output)
    choices = options.task_options(
        env=env,
        name=name,
        timeout_s=timeout_s,
        cpu=cpu,
        memory_mib=memory_mib,
        isolation=isolation,
        priority=priority,
        cpu_feature=cpu_feature,
        output=[each.path for each in files],
    )
    body = _standard_input(no_stdin=no_stdin)
    with session.client() as client:
        try:
            with client.run(
                image, args or (), body=body, stream=stream, queue_timeout_s=queue_timeout_s, **choices
            ) as answer:
                for piece in answer:
                    write_out(piece)
        except TaskFailed as failure:
            _show_output(failure)
            code = exits.of_error(failure, as_task=True)
            report.error(failure, as_json=session.as_json, code=code)
            if failure.task_id and (files or (verbose and not session.as_json)):
                with suppress(ClientError):
                    task = client.task(failure.task_id)
                    if verbose and not session.as_json:
                        report.say(report.facts(task), prefix="")
                    bring(client, task, files, told=verbose)
                    if not session.as_json and "not kept" not in failure.detail:
                        report.say_missing(task, choices["outputs"])
            return code
        if verbose or session.as_json:
            _show_facts(client, answer, as_json=session.as_json)
        if files:
            task = client.task(answer.task_id or "", wait_s=5)
            bring(client, task, files, told=verbose)
            if report.say_detail(task, choices["outputs"]):
                return exits.FAILED
        elif answer.facts and answer.facts.detail and not session.as_json:
            report.say(f"task {answer.task_id}: {report.plain(answer.facts.detail)}")
        return answer.facts.exit_code if answer.facts else 0


@untouched
@ends_as_task
def submit(
    session: Session,
    image: options.Image,
    args: options.Arguments = None,
    input_file: Annotated[
        Path | None,
        Option(("--input", "-i"), metavar="FILE", help="Read this file instead of standard input."),
    ] = None,
    no_stdin: NoStdin = False,
    wait: Annotated[
        bool, Option(("--wait",), help="Wait until it ends; exit as `gcompute wait` does.")
    ] = False,
    idempotency_key: Annotated[
        str | None,
        Option(metavar="KEY", help="Make repeating safe: calls with the same key are one task."),
    ] = None,
    retries: Annotated[
        int | None,
        Option(
            min=0,
            max=20,
            help="Run it again, this many times at most, if it fails by itself (0). Each attempt is billed.",
            panel="The task",
        ),
    ] = None,
    retry_exit_code: Annotated[
        list[int] | None,
        Option(
            metavar="CODE",
            min=1,
            max=255,
            help="With --retries: only after this exit code (repeatable).",
            panel="The task",
        ),
    ] = None,
    callback_url: Annotated[
        str | None,
        Option(metavar="URL", help="Have the task's JSON sent there when it has ended.", panel="The task"),
    ] = None,
    env: options.Env = None,
    name: options.Name = None,
    timeout_s: options.TimeoutS = None,
    cpu: options.Cpu = None,
    memory_mib: options.MemoryMib = None,
    isolation: options.Isolation = None,
    priority: options.Priority = None,
    cpu_feature: options.CpuFeature = None,
    output: options.KeptFile = None,
) -> int:
    """Submit a task and print its id; by then the service has task and input on disk.

    Examples:

        id=$(gcompute submit ocr:1 -l eng < page.png) && gcompute wait $id && gcompute result $id

        gcompute submit --input film.mkv --output /tmp/out.mp4 --timeout-s 7200 encode:3

        gcompute submit --idempotency-key order-4711 --wait invoice:1 < order.json

        gcompute submit --retries 3 --retry-exit-code 75 fetch:1 < list.txt

        gcompute submit --priority spare --timeout-s 7200 render:2 < scene.blend
    """
    choices = options.task_options(
        env=env,
        name=name,
        timeout_s=timeout_s,
        cpu=cpu,
        memory_mib=memory_mib,
        isolation=isolation,
        priority=priority,
        cpu_feature=cpu_feature,
        output=output,
    )
    if input_file is None:
        body = _standard_input(no_stdin=no_stdin)
    else:
        try:
            body = input_file.open("rb")
        except OSError as error:
            raise InputFailed(f"--input {input_file}: {error.strerror}") from error
    with session.client() as client:
        task = client.submit(
            image,
            args or (),
            body=body,
            idempotency_key=idempotency_key,
            retries=retries,
            retry_exit_codes=retry_exit_code or (),
            callback_url=callback_url,
            **choices,
        )
        print(json.dumps(task) if session.as_json else task["id"], flush=True)
        return follow(client, [task["id"]], as_json=session.as_json, quiet=True) if wait else 0


def _standard_input(*, no_stdin: bool) -> Body:
    if no_stdin or sys.stdin is None:
        return b""
    if sys.stdin.isatty() and sys.stderr.isatty():
        report.say("reading the terminal: end the input with Ctrl-D (-n sends none)")
    return sys.stdin.buffer


def _show_output(failure: TaskFailed) -> None:
    """Print the output that a failed task had written; for many programs, e.g. `diff`, it is the answer."""
    write_out(failure.stdout_head.encode("utf-8", "replace"))
    mark = report.cut(failure.document, "stdout")
    if mark:
        # A cut output must not look complete, nor join the parts before and after the cut.
        report.say(f"{mark.lstrip()}{report.plain(failure.stdout_tail).rstrip()}", prefix="")
        report.say("`gcompute submit` keeps all of an output")
    else:
        write_out(failure.stdout_tail.encode("utf-8", "replace"))


def _show_facts(client: Client, answer: Output, *, as_json: bool) -> None:
    task: Task = {"id": answer.task_id or "", "set": answer.set_name or "", "state": "succeeded"}
    if answer.facts:
        task["exit_code"] = answer.facts.exit_code
        task["duration_us"] = answer.facts.duration_us
        task["cpu_us"] = answer.facts.cpu_us
        task["queue_us"] = answer.facts.queue_us
        task["cold_start"] = answer.facts.cold_start
    if answer.task_id:
        # The task's row has more fields (stderr, memory); without it the headers suffice.
        with suppress(ClientError):
            task = client.task(answer.task_id, wait_s=5)
    if as_json:
        print(json.dumps(task), file=sys.stderr)
        return
    report.said(task)
    report.say(report.facts(task), prefix="")
