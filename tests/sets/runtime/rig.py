"""The runtime as an engine calls it, with a program in runc's place that reports what it was given.

Each call has a mount namespace of its own, in which /run and the tables of ids are the test's. So it claims none of
this machine's ids, and leaves no mount behind.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sets.runtime import RUNTIME_BINARY

FIRST: Final = 3_000_000_000
BLOCK: Final = 131_072
MAPPED: Final = 65_536

# Reports its arguments, config.json, and what it sees of the container's files; then waits, if it is told to.
RUNC: Final = """#!/usr/bin/env python3
import json, os, sys
words = sys.argv[1:]
told = {"words": words}
if "--bundle" in words:
    with open(os.path.join(words[words.index("--bundle") + 1], "config.json")) as file:
        told["text"] = file.read()
    config = json.loads(told["text"])
    root = config["root"]["path"]
    told["files"] = {}
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            st = os.lstat(path)
            told["files"][os.path.relpath(path, root)] = [st.st_uid, st.st_gid, st.st_mode & 0o7777]
    told["binds"] = {}
    for mount in config.get("mounts", []):
        if os.path.isabs(mount.get("source", "")) and os.path.exists(mount["source"]):
            st = os.stat(mount["source"])
            told["binds"][mount["destination"]] = [st.st_uid, st.st_gid]
print(json.dumps(told), flush=True)
sys.stdin.read()
"""

ENTER: Final = """
mount --bind "$0/run" /run && mount --bind "$0/subuid" /etc/subuid && mount --bind "$0/subgid" /etc/subgid || exit 90
[ ! -e "$0/mount" ] || . "$0/mount" || exit 91
PATH="$0/bin:$PATH"
exec "$@"
"""


@dataclass
class Call:
    """A runtime that runs; `told` is what its runc reported."""

    process: subprocess.Popen[str]
    told: dict[str, Any]
    error: str = ""

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.told["text"])
        return config

    @property
    def first_uid(self) -> int:
        first: int = self.config["linux"]["uidMappings"][0]["hostID"]
        return first

    def end(self) -> int:
        """Let runc end; return the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait()


@dataclass
class Rig:
    """A machine for the runtime in `folder`, whose ids suffice for `blocks` containers."""

    folder: Path
    blocks: int = 4
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("run", "bin", "layers/lower", "layers/upper", "layers/work", "layers/merged", "bundle"):
            (self.folder / name).mkdir(parents=True)
        for name, first in (("subuid", FIRST), ("subgid", FIRST + 7)):
            (self.folder / name).write_text(
                f"other:1000000:65536\ngcompute-runc:{first}:{self.blocks * BLOCK}\n"
            )
        runc = self.folder / "bin/runc"
        runc.write_text(RUNC)
        runc.chmod(0o755)
        self.mount(f"lowerdir={self.lower},upperdir={self.upper},workdir={self.layers}/work")

    @property
    def layers(self) -> Path:
        return self.folder / "layers"

    @property
    def lower(self) -> Path:
        return self.layers / "lower"

    @property
    def upper(self) -> Path:
        return self.layers / "upper"

    @property
    def state(self) -> Path:
        """Where runc would keep its state."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        return self.folder / "log.json"

    def mount(self, options: str) -> None:
        """Mount the engine's overlay with these options, from the folder of the layers."""
        script = f"(cd '{self.layers}' && mount -t overlay overlay -o '{options}' '{self.layers}/merged')\n"
        (self.folder / "mount").write_text(script)

    def create(self, config: dict[str, Any] | str, name: str = "c1", *options: str) -> Call:
        """Have a container created."""
        bundle = self.folder / "bundle"
        (bundle / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return self.call(
            *("--root", str(self.state), "--log", str(self.log), "--log-format", "json"),
            *("create", "--bundle", str(bundle), *options, name),
        )

    def call(self, *words: str) -> Call:
        command = ["unshare", "--mount", "sh", "-c", ENTER, str(self.folder), str(RUNTIME_BINARY), *words]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        made = Call(process, json.loads(line) if line else {}, "" if line else process.stderr.read())
        self.calls.append(made)
        return made

    def refusal(self, config: dict[str, Any] | str) -> str:
        """Return why a container can't be created, as the engine reads it in the log."""
        self.log.unlink(missing_ok=True)
        call = self.create(config)
        assert call.end() == 1, call.told
        record: dict[str, str] = json.loads(self.log.read_text().splitlines()[-1])
        assert record["level"] == "error"
        assert record["msg"] in call.error
        return record["msg"]

    def config(self, **more: Any) -> dict[str, Any]:
        """Return a configuration as an engine writes it; `more` are further members of its `linux`."""
        return {
            "ociVersion": "1.0.2-dev",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "env": ['QUOTED="\\\u00e9\U0001f600'],
                "rlimits": [{"type": "RLIMIT_MEMLOCK", "hard": 2**64 - 1, "soft": 2**64 - 1}],
            },
            "root": {"path": str(self.layers / "merged"), "readonly": True},
            "mounts": [],
            "linux": {
                "sysctl": {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.tcp_no_metrics_save": "1"},
                "namespaces": [{"type": "mount"}, {"type": "pid"}],
                "resources": {"memory": {"limit": 9223372036854771712}},
                **more,
            },
        }

    def close(self) -> None:
        for call in self.calls:
            if call.process.poll() is None:
                call.end()
            for pipe in (call.process.stdout, call.process.stderr):
                if pipe is not None:
                    pipe.close()
