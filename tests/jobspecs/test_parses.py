"""What Nomad makes of each file in jobspecs/: recorded, so that these hold where no Nomad is."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from ops.doctor.policy import VOLUMES
from scheduler.launchers.nomad.records import TASK
from tests.jobspecs.parses import NAMES, RECORDINGS, digest, given, parse, recorded, tasks

AGAIN = "have Nomad parse it again: `python -m tests.jobspecs.record`, with nomad on PATH"
OF_IMAGES = ("slot", "pull")
"""Jobs that run a container of a user's image."""
OF_THE_PLATFORM = ("set", "router")
"""Jobs that run containers of the platform's own image."""


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_as_it_was_when_a_nomad_parsed_it(name: str) -> None:
    assert recorded(name)["hcl"] == digest(name), f"jobspecs/{name}.nomad.hcl has changed; {AGAIN}"
    assert recorded(name)["variables"] == given(name), f"{name}: its variables have changed; {AGAIN}"


def test_each_recording_names_its_nomad_and_is_of_a_file_that_exists() -> None:
    assert sorted(path.stem for path in RECORDINGS.iterdir()) == NAMES
    assert len({recorded(name)["nomad"] for name in NAMES}) == 1
    assert recorded("slot")["nomad"].startswith("v")


@pytest.mark.parametrize("name", NAMES)
def test_the_nomad_that_is_here_parses_as_the_recorded_one(name: str) -> None:
    if shutil.which("nomad") is None:
        pytest.skip("nomad is not on PATH: what another one made of the file is compared alone")
    assert parse(name) == recorded(name)["job"]


def config(name: str) -> list[dict[str, Any]]:
    return [task["Config"] for _, task in tasks(name)]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_container_of_an_image_has_the_walls_and_no_setting_that_nobody_looked_at(name: str) -> None:
    walls = {
        "network_mode": "none",
        "cgroupns": "private",
        "cap_drop": ["all"],
        "security_opt": ["no-new-privileges", "seccomp=/var/lib/general-compute/seccomp/slots-1.json"],
        "readonly_rootfs": True,
        "logging": [{"type": "none"}],
        "healthchecks": [{"disable": True}],
        "runtime": "",
    }
    known = {"image", "entrypoint", "args", "labels", "mount", "pids_limit", *walls}
    of_slots = {"hostname", "oom_score_adj", "cpu_hard_limit", "ulimit", "sysctl"}
    for found in config(name):
        assert {key: found[key] for key in walls} == walls
        assert found.keys() == (known | of_slots if name == "slot" else known)
        assert 0 < found["pids_limit"] <= 256
        assert found["entrypoint"] == ["/gc/bin/guest-1"]
        assert {each["type"] for each in found["mount"]} == {"tmpfs"}


def test_a_slot_covers_each_place_with_a_tmpfs_of_its_size() -> None:
    places = recorded("slot")["variables"]["places"]
    for found in config("slot"):
        assert [
            (each["target"], each["tmpfs_options"][0]["size"], each["tmpfs_options"][0]["mode"])
            for each in found["mount"]
        ] == [(place["path"], place["size_bytes"], 0o1777) for place in places]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_container_of_an_image_sees_the_platforms_folders_alone_and_read_only(name: str) -> None:
    sources = set()
    for group, task in tasks(name):
        assert task["Name"] == TASK
        assert all(each["ReadOnly"] for each in (*group["Volumes"].values(), *task["VolumeMounts"]))
        places = {each["Volume"]: each["Destination"] for each in task["VolumeMounts"]}
        assert places.keys() == group["Volumes"].keys()
        assert (places["hide"], places["dev"]) == ("/gc/nomad", "/dev")
        folders = ("NOMAD_ALLOC_DIR", "NOMAD_TASK_DIR", "NOMAD_SECRETS_DIR")
        assert all(task["Env"][each].startswith("/gc/nomad/") for each in folders)
        sources |= {each["Source"] for each in group["Volumes"].values()}
    assert sources <= VOLUMES
    assert name == "pull" or sources == VOLUMES


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_container_of_an_image_gets_no_token_no_network_and_no_file_of_nomad(name: str) -> None:
    for group, task in tasks(name):
        assert task["Driver"] == "docker"
        assert not {"Networks", "Services", "Consul"} & group.keys()
        assert (
            not {
                *(
                    "Identity",
                    "Identities",
                    "Vault",
                    "Consul",
                    "Templates",
                    "Artifacts",
                    "Services",
                    "Secrets",
                ),
                *("Lifecycle", "DispatchPayload", "CSIPluginConfig"),
            }
            & task.keys()
        )
        assert task["Resources"].keys() == {"CPU", "MemoryMB"}
        assert task["LogConfig"]["Disabled"]


def test_nomad_neither_restarts_nor_replaces_a_slot_and_ends_a_forgotten_one() -> None:
    for group, _ in tasks("slot"):
        assert (group["Count"], group["RestartPolicy"]) == (1, {"Attempts": 0, "Mode": "fail"})
        assert group["ReschedulePolicy"] == {"Attempts": 0, "Unlimited": False}
        assert group["Disconnect"] == {"LostAfter": 24 * 3600 * 10**9, "Replace": False}
        assert group["MaxRunDuration"] == recorded("slot")["variables"]["max_run_s"] * 10**9


def test_a_slot_runs_where_it_was_ordered_on_a_node_with_its_cpu_features() -> None:
    job = recorded("slot")["job"]
    assert {"LTarget": "${meta.gc_cpu_avx2}", "RTarget": "1", "Operand": "="} in job["Constraints"]
    for group, _ in tasks("slot"):
        assert group["Constraints"] == [{"LTarget": "${node.unique.name}", "RTarget": "n1", "Operand": "="}]


@pytest.mark.parametrize("name", OF_THE_PLATFORM)
def test_a_container_of_the_platform_has_no_right_that_it_does_not_need(name: str) -> None:
    for _, task in tasks(name):
        found = task["Config"]
        assert (task["Driver"], found["cap_drop"], found["readonly_rootfs"]) == ("docker", ["all"], True)
        assert found["security_opt"] == ["no-new-privileges"]
        assert (
            not {"privileged", "cap_add", "devices", "volumes", "pid_mode", "ipc_mode", "userns_mode"}
            & found.keys()
        )
        assert all(each["type"] == "tmpfs" for each in found.get("mount", ()))
        assert found["pids_limit"] <= 512
        user, _, group = task["User"].partition(":")
        assert int(user) > 0 < int(group)


def test_the_registrars_folder_with_its_token_reaches_the_registrar_alone() -> None:
    mounts = {
        task["Name"]: {each["Volume"] for each in task.get("VolumeMounts", ())} for _, task in tasks("set")
    }
    assert mounts == {"registrar": {"registrar"}, "set": {"state", "config"}}
    users = {task["Name"]: task["User"].partition(":")[0] for _, task in tasks("set")}
    assert users["registrar"] != users["set"]
    (text,) = (
        template["EmbeddedTmpl"]
        for _, task in tasks("set")
        if task["Name"] == "registrar"
        for template in task["Templates"]
    )
    assert "token_file: /registrar/token\n" in text
    assert 'registries: ["registry.example"]\n' in text


def test_a_node_runs_no_package_but_the_one_whose_digest_the_operator_gave() -> None:
    ((_, task),) = tasks("executor")
    (artifact,) = task["Artifacts"]
    assert artifact["GetterSource"] == recorded("executor")["variables"]["package"]
    assert artifact["GetterOptions"]["checksum"] == recorded("executor")["variables"]["checksum"]
