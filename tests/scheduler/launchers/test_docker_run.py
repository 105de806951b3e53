"""Each form of an image's configuration by `docker run --network none -i` and by a slot: the program sees the same.

What differs, and why:

- HOSTNAME is `slot`: tasks of a slot must not be told apart by it.
- Limits (descriptors, processes, memory) are a slot's own; README.md lists them.
- oom_score_adj: under memory pressure the program goes before the guest, and a slot before the set.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from docker.errors import APIError

from tests.conftest import SetProcess
from tests.scheduler.launchers.rig import Files, ImageMaker

pytestmark = pytest.mark.docker

HERE = Path(__file__).parent

PASSWD = b"""\
root:x:0:0::/root:/none
app:x:1234:2345::/home/app:/none
other:x:1234:9999::/elsewhere:/none
7:x:77:777::/seven:/none
bare:x:55:66::
"""
GROUP = b"root:x:0:\napp:x:2345:\nextra:x:3456:app,bare\nmore:x:4567:other,app,root\n"

NOT_STARTED = "not started"
TELL = ["/bin/tell"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    binary = tmp_path_factory.mktemp("teller") / "teller"
    flags = ("-static", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *flags, "-o", binary, HERE / "teller.c"], check=True)
    tell = binary.read_bytes()
    return {
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
        "home/app": 0o755,
        "root": 0o700,
        "tmp": 0o1777,
        "bin/tell": tell,
        "opt/tools/tell": tell,
        "app/tell": tell,
        "app/run.txt": b"no program",
        "app/script": b"#!/bin/tell\n",
        "app/crlf": b"#!/bin/tell\r\n",
        "app/orphan": b"#!/nowhere\n",
        "app/bare": b"echo no interpreter\n",
        "app/folder": 0o755,
        "app/link": "tell",
        "app/circle": "circle",
    }


def by_docker(client: APIClient, image: str, args: list[str], env: list[str]) -> tuple[int | str, list[str]]:
    """The exit code and what the program said, or `NOT_STARTED` and why."""
    body: dict[str, Any] = {
        "Image": image,
        "OpenStdin": True,
        "StdinOnce": True,
        "NetworkDisabled": True,
        "HostConfig": {"NetworkMode": "none"},
        **({"Cmd": args} if args else {}),
        **({"Env": env} if env else {}),
    }
    try:
        container = client.create_container_from_config(body)["Id"]  # type: ignore[no-untyped-call]
    except APIError as error:
        return NOT_STARTED, [str(error.explanation)]
    try:
        client.start(container)
        code = client.wait(container)["StatusCode"]
        said = client.logs(container, stdout=True, stderr=False)
        return code, _comparable(said)
    except APIError as error:
        return NOT_STARTED, [str(error.explanation)]
    finally:
        client.remove_container(container, force=True, v=True)


def by_slot(own_set: SetProcess, image: str, args: list[str], env: list[str]) -> tuple[int | str, list[str]]:
    with own_set.client() as client:
        answer = client.post(f"/v1/run/{image}", params={"arg": args, "env": env})
    if answer.status_code == 200:
        return 0, _comparable(answer.content)
    problem = answer.json()
    if problem.get("reason") == "exit":
        return problem["exit_code"], []
    # Whatever cannot be started is the image's or the caller's fault, never the platform's.
    assert answer.status_code in (400, 422), problem
    return NOT_STARTED, [problem["detail"]]


def _without_ignored(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("SigIgn:")]


def _comparable(said: bytes) -> list[str]:
    return [line for line in said.decode().splitlines() if not line.startswith("env HOSTNAME=")]


def form(**config: Any) -> dict[str, Any]:
    return {
        name.capitalize() if name != "working_dir" else "WorkingDir": value for name, value in config.items()
    }


FORMS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    # ENTRYPOINT, CMD and arguments
    "entrypoint": (form(entrypoint=TELL), [], []),
    "entrypoint and arguments": (form(entrypoint=TELL), ["a", ""], []),
    "entrypoint and cmd": (form(entrypoint=TELL, cmd=["a", "b c"]), [], []),
    "arguments for cmd": (form(entrypoint=TELL, cmd=["a"]), ["x"], []),
    "cmd": (form(cmd=[*TELL, "a"]), [], []),
    "arguments alone": (form(), [*TELL, "a"], []),
    "arguments for the whole cmd": (form(cmd=["/nowhere"]), TELL, []),
    "nothing": (form(), [], []),
    "empty lists": (form(entrypoint=[], cmd=[]), [], []),
    "empty entrypoint": (form(entrypoint=[], cmd=TELL), [], []),
    "entrypoint of nothing": (form(entrypoint=[""], cmd=TELL), [], []),
    "entrypoint of nothing, arguments": (form(entrypoint=[""], cmd=["/nowhere"]), [*TELL, "a"], []),
    "entrypoint of nothing alone": (form(entrypoint=[""]), [], []),
    "entrypoint of nothing and more": (form(entrypoint=["", "x"], cmd=TELL), [], []),
    "cmd of nothing": (form(entrypoint=TELL, cmd=[""]), [], []),
    "cmd of nothing alone": (form(cmd=[""]), [], []),
    "an empty argument alone": (form(entrypoint=TELL, cmd=["a"]), [""], []),
    "exit code": (form(entrypoint=TELL), ["fail"], []),
    # ENV
    "env": (form(entrypoint=TELL, env=["A=1", "B=x=y", "C=", "D= s "]), [], []),
    "env twice": (form(entrypoint=TELL, env=["A=1", "B=2", "A=3"]), [], []),
    "env without value": (form(entrypoint=TELL, env=["A", "B=1"]), [], []),
    "env of no name": (form(entrypoint=TELL, env=["=x", "B=1"]), [], []),
    "env of the caller": (form(entrypoint=TELL, env=["A=1", "B=2"]), [], ["A=9", "N=", "M=x=y"]),
    "env of the caller twice": (form(entrypoint=TELL, env=["A=1"]), [], ["A=2", "A=3"]),
    "env of the caller over two": (form(entrypoint=TELL, env=["A=1", "A=2"]), [], ["A=3"]),
    "env of the caller beside two": (form(entrypoint=TELL, env=["A=1", "A=2"]), [], ["B=1"]),
    "env with lines": (form(entrypoint=TELL, env=["A=1\n2"]), [], ["B=\u00fc\n"]),
    "HOSTNAME of the image": (form(entrypoint=TELL, env=["HOSTNAME=mine"]), [], []),
    "TERM": (form(entrypoint=TELL, env=["TERM=dumb"]), [], []),
    # PATH
    "program by PATH": (form(entrypoint=["tell"]), [], []),
    "PATH of the image": (form(entrypoint=["tell"], env=["PATH=/nowhere:/opt/tools"]), [], []),
    "PATH of the caller": (form(entrypoint=["tell"], env=["PATH=/nowhere"]), [], ["PATH=/opt/tools"]),
    "PATH of the caller hides": (form(entrypoint=["tell"]), [], ["PATH=/opt"]),
    "PATH empty": (form(entrypoint=["tell"], env=["PATH="], working_dir="/app"), [], []),
    "PATH unset": (form(entrypoint=["tell"], env=["PATH"]), [], []),
    "PATH unset, absolute program": (form(entrypoint=TELL, env=["PATH"]), [], []),
    "PATH relative": (form(entrypoint=["tell"], env=["PATH=tools"], working_dir="/opt"), [], []),
    "PATH with an empty part": (
        form(entrypoint=["tell"], env=["PATH=/nowhere:"], working_dir="/app"),
        [],
        [],
    ),
    "PATH finds a folder first": (form(entrypoint=["tell"], env=["PATH=/etc:/app/folder:/bin"]), [], []),
    "PATH finds what cannot run first": (form(entrypoint=["folder"], env=["PATH=/app:/bin"]), [], []),
    "relative program": (form(entrypoint=["./tell"], working_dir="/app"), [], []),
    "relative program below": (form(entrypoint=["tools/tell"], working_dir="/opt"), [], []),
    "program by a link": (form(entrypoint=["/app/link"]), [], []),
    # What cannot be run
    "missing program": (form(entrypoint=["/nowhere"]), [], []),
    "missing program by PATH": (form(entrypoint=["nowhere"]), [], []),
    "folder": (form(entrypoint=["/app/folder"]), [], []),
    "circle of links": (form(entrypoint=["/app/circle"]), [], []),
    "below a file": (form(entrypoint=["/bin/tell/x"]), [], []),
    "script": (form(entrypoint=["/app/script", "a"]), [], []),
    "script with CRLF": (form(entrypoint=["/app/crlf"]), [], []),
    "script without its interpreter": (form(entrypoint=["/app/orphan"]), [], []),
    "script without an interpreter": (form(entrypoint=["/app/bare"]), [], []),
    # WORKDIR
    "workdir": (form(entrypoint=TELL, working_dir="/app"), [], []),
    "workdir that is missing": (form(entrypoint=TELL, working_dir="/new/deep"), [], []),
    "workdir relative": (form(entrypoint=TELL, working_dir="app/folder"), [], []),
    "workdir with dots": (form(entrypoint=TELL, working_dir="/app//folder/../"), [], []),
    "workdir with a variable": (form(entrypoint=TELL, working_dir="/app/$HOME"), [], []),
    "workdir that is a file": (form(entrypoint=TELL, working_dir="/app/run.txt"), [], []),
    "workdir in HOME": (form(entrypoint=TELL, working_dir="/home/app/x", user="app"), [], []),
    # USER and HOME
    "user by name": (form(entrypoint=TELL, user="app"), [], []),
    "user by number in passwd": (form(entrypoint=TELL, user="1234"), [], []),
    "user by number with a group of its own": (form(entrypoint=TELL, user="1234:5"), [], []),
    "user by number": (form(entrypoint=TELL, user="4242"), [], []),
    "user whose name is a number": (form(entrypoint=TELL, user="7"), [], []),
    "user and group": (form(entrypoint=TELL, user="app:extra"), [], []),
    "user and number": (form(entrypoint=TELL, user="app:5"), [], []),
    "root and group": (form(entrypoint=TELL, user="root:extra"), [], []),
    "group alone": (form(entrypoint=TELL, user=":extra"), [], []),
    "user without a home": (form(entrypoint=TELL, user="bare"), [], []),
    "user of another's number": (form(entrypoint=TELL, user="other"), [], []),
    "user that is missing": (form(entrypoint=TELL, user="nobody"), [], []),
    "group that is missing": (form(entrypoint=TELL, user="app:nobody"), [], []),
    "HOME": (form(entrypoint=TELL, user="app", env=["HOME=/x"]), [], []),
    "HOME empty": (form(entrypoint=TELL, user="app", env=["HOME="]), [], []),
    "HOME without value": (form(entrypoint=TELL, user="app", env=["HOME"]), [], []),
    "HOME relative": (form(entrypoint=TELL, user="app", env=["HOME=x"]), [], []),
    "HOME of the caller": (form(entrypoint=TELL, user="app", env=["HOME=/x"]), [], ["HOME=/y"]),
    "HOME of the caller empty": (form(entrypoint=TELL, user="app"), [], ["HOME="]),
}

DIFFER: dict[str, str | list[str]] = {
    # `docker run` starts a container, whose runc then prints the error and ends with 1, as the program could have.
    "script with CRLF": NOT_STARTED,
    "script without its interpreter": NOT_STARTED,
    "script without an interpreter": NOT_STARTED,
    # Go's rule, newer than Docker's: a program found through a relative part of PATH is not run. POSIX runs it.
    "PATH empty": ["argv tell"],
    "PATH relative": ["argv tell"],
    "PATH with an empty part": ["argv tell"],
    # The engine finds nothing without PATH; a slot searches the engine's own default.
    "PATH unset": ["argv tell"],
    # Given any variable with -e, `docker run` takes the first of two in the image. A slot is started before.
    "env of the caller beside two": ["env A=2", "env B=1"],
}


@pytest.mark.parametrize("name", [name for name in FORMS if name not in DIFFER])
def test_a_slot_merges_as_docker_run_does(
    own_set: SetProcess, images: ImageMaker, client: APIClient, files: Files, name: str
) -> None:
    config, args, env = FORMS[name]
    image = images.load(config, files=files)
    wanted, found = by_docker(client, image, args, env), by_slot(own_set, image, args, env)
    assert found[0] == wanted[0], (wanted, found)
    if wanted[0] == 0:
        # An engine hands on the signals that it was itself told to ignore; a slot's program ignores none.
        ignored = [line for line in found[1] if line.startswith("SigIgn:")]
        assert [int(line.split()[1], 16) for line in ignored] == [0]
        assert _without_ignored(found[1]) == _without_ignored(wanted[1])


@pytest.mark.parametrize("name", DIFFER)
def test_where_a_slot_differs(
    own_set: SetProcess, images: ImageMaker, client: APIClient, files: Files, name: str
) -> None:
    config, args, env = FORMS[name]
    image = images.load(config, files=files)
    code, said = by_slot(own_set, image, args, env)
    expected = DIFFER[name]
    assert code == (NOT_STARTED if expected is NOT_STARTED else 0), said
    if isinstance(expected, list):
        assert set(expected) <= set(said)
    assert by_docker(client, image, args, env) != (code, said)
