"""The jobs that Nomad makes of the files in jobspecs/, as a real one made them: CI has none to ask.

A recording names the Nomad, the digest of the file, and the variables with which it was parsed. After a change of a
file, or of what the registrar sends: `python -m tests.jobspecs.record`, with `nomad` on PATH. It needs no agent.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scheduler.launchers.nomad import job as slots
from scheduler.launchers.nomad import pulls
from scheduler.launchers.nomad.orders import Add, AheadImage, NewSlot
from scheduler.launchers.nomad.settings import RegistrarSettings
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.conftest import ROOT

JOBS = ROOT / "jobspecs"
RECORDINGS = Path(__file__).parent / "recordings"
NAMES = sorted(path.name.removesuffix(".nomad.hcl") for path in JOBS.glob("*.nomad.hcl"))

_DIGEST = "sha256:" + "0123456789abcdef" * 4
_REGISTRAR = RegistrarSettings(set_name="a", socket="/run/r.sock", status_url="https://set-a.example/status")
_PLATFORM = "registry.example/general-compute:1"
_FILES = ("guest-1", "slots-1.json")


def variables(name: str, folder: Path) -> dict[str, Any]:
    """Variables of a job: what the registrar sends, or what an operator must give. `folder` is for files."""
    match name:
        case "slot":
            return slots.variables(_order(), _REGISTRAR, "gc-a-0-1", "0" * 12, *_FILES)
        case "pull":
            image = AheadImage("cat:1", f"registry.example/cat@{_DIGEST}", ("/tmp", "/data"))
            return pulls.variables("gc-a-pull-0-1", image, _REGISTRAR, *_FILES)
        case "executor":
            package = "https://files.example/p.tar.gz"
            return {"package": package, "checksum": _DIGEST, "shares": "{a: {cores: 8}}"}
        case "set":
            settings = folder / "set-a.yaml"
            settings.write_text("drain_notice_s: 0\n")
            return {
                "image": _PLATFORM,
                "set_name": "a",
                "executors": {"n1": "10.0.0.11:8201"},
                "registries": ["registry.example"],
                "settings": str(settings),
            }
        case "router":
            return {"image": _PLATFORM}
    raise AssertionError(f"jobspecs/{name}.nomad.hcl is new: name its variables here")


def _order() -> Add:
    pool = PoolKey("acme", _DIGEST, Resources(50, 256), Isolation.SHARED, ("avx2",))
    return Add(
        request=1,
        pool=pool,
        image="cat:1",
        run=f"registry.example/cat@{_DIGEST}",
        places=("/tmp", "/dev/shm"),
        covered=("/held",),
        names=("PATH",),
        env={"PATH": "/bin"},
        slots=tuple(NewSlot(f"s-{number}", "ab" * 32, f"inst/door{number}") for number in (1, 2)),
        node="n1",
        executor_limits_cpu=True,
    )


def digest(name: str) -> str:
    """The digest of a job's file."""
    return hashlib.sha256((JOBS / f"{name}.nomad.hcl").read_bytes()).hexdigest()


def given(name: str) -> dict[str, Any]:
    """The variables of a job, as they are recorded."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = json.loads(json.dumps(variables(name, Path(folder))))
    if "settings" in found:
        found["settings"] = "set-a.yaml"
    return found


def parse(name: str) -> dict[str, Any]:
    """The job that the Nomad of this machine makes of a file, without what it leaves unset."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "variables.hcl"
        file.write_text(slots.written(variables(name, Path(folder))))
        words = ["nomad", "job", "run", "-output", f"-var-file={file}", str(JOBS / f"{name}.nomad.hcl")]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    job: dict[str, Any] = _set(json.loads(done.stdout)["Job"])
    return job


def recorded(name: str) -> dict[str, Any]:
    """The recording of a job: `nomad`, `hcl`, `variables`, `job`."""
    found: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
    return found


def tasks(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each task of a recorded job, behind its group."""
    for group in recorded(name)["job"]["TaskGroups"]:
        for task in group["Tasks"]:
            yield group, task


def _set(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _set(each) for key, each in value.items() if each is not None}
    return [_set(each) for each in value] if isinstance(value, list) else value
