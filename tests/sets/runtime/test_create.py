"""What the runtime makes of a container's configuration and files before runc has them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.sets.runtime.rig import BLOCK, FIRST, MAPPED, Rig


def test_the_container_gets_a_user_namespace_and_nothing_else_changes(rig: Rig) -> None:
    given = rig.config()
    call = rig.create(given)
    wanted = json.loads(json.dumps(given))
    linux, got = wanted["linux"], call.config
    uids, gids = got["linux"].pop("uidMappings"), got["linux"].pop("gidMappings")
    assert [(each["containerID"], each["size"]) for each in (*uids, *gids)] == [(0, MAPPED)] * 2
    block, rest = divmod(uids[0]["hostID"] - FIRST, BLOCK)
    assert (rest, gids[0]["hostID"]) == (0, FIRST + 7 + block * BLOCK)
    assert block in range(rig.blocks)
    linux["namespaces"].append({"type": "user"})
    linux["sysctl"]["net.ipv4.ping_group_range"] = f"0 {MAPPED - 1}"
    wanted["root"]["path"] = "/run/gcompute-runc/root"
    assert got == wanted
    assert call.end() == 0


def test_runc_gets_the_engines_words_unchanged(rig: Rig) -> None:
    call = rig.create(rig.config(), "c1", "--pid-file", "create")
    assert call.told["words"] == [
        *("--root", str(rig.state), "--log", str(rig.log), "--log-format", "json"),
        *("create", "--bundle", str(rig.folder / "bundle"), "--pid-file", "create", "c1"),
    ]
    for words in (["--version"], ["--root", "/r", "delete", "--force", "c1"], ["state", "create"]):
        assert rig.call(*words).told == {"words": words}


def test_files_of_the_image_belong_to_the_same_users_within(rig: Rig) -> None:
    """A file that only its owner may read is readable to that user of the container, as without the runtime."""
    (rig.lower / "data").mkdir(mode=0o750)
    for name, owner in (("data/roots", 0), ("data/users", 1000), ("data/foreign", 70_000)):
        file = rig.lower / name
        file.touch(mode=0o600)
        _chown(file, owner)
    (rig.upper / "written").touch()
    call = rig.create(rig.config())
    uid, gid = call.first_uid, call.first_uid + 7
    nobody = 65_534
    assert call.told["files"] == {
        ".": [uid, gid, 0o755],
        "data": [uid, gid, 0o750],
        "data/roots": [uid, gid, 0o600],
        "data/users": [uid + 1000, gid + 1000, 0o600],
        "data/foreign": [nobody, nobody, 0o600],
        "written": [uid, gid, 0o644],
    }


@pytest.mark.parametrize("odd", ["plain", "with space", "a,b"])
def test_layers_are_found_wherever_the_engine_has_them(tmp_path: Path, odd: str, rig: Rig) -> None:
    top = rig.layers / odd
    for number in range(3):
        (top / str(number)).mkdir(parents=True)
        (top / str(number) / "which").write_text(str(number))
        (top / str(number) / f"only-{number}").touch()
    escaped = str(top).replace(",", "\\,")
    lower = ":".join(f"{escaped}/{number}" for number in range(3))
    rig.mount(f"lowerdir={lower},upperdir={rig.upper},workdir={rig.layers}/work")
    files = rig.create(rig.config()).told["files"]
    assert set(files) == {".", "which", "only-0", "only-1", "only-2"}


def test_layers_are_found_by_paths_relative_to_dockers_folder(rig: Rig) -> None:
    """Docker names them so if the paths are long together."""
    (rig.lower / "here").touch()
    (rig.layers / "id/merged").mkdir(parents=True)
    rig.mount(f"lowerdir=lower,upperdir={rig.upper},workdir={rig.layers}/work")
    mount = rig.folder / "mount"
    mount.write_text(mount.read_text().replace(f"{rig.layers}/merged", f"{rig.layers}/id/merged"))
    config = rig.config()
    config["root"]["path"] = str(rig.layers / "id/merged")
    assert "here" in rig.create(config).told["files"]


def test_ids_of_the_user_beyond_the_first_are_mapped_one_by_one(rig: Rig) -> None:
    config = rig.config()
    config["process"]["user"] = {"uid": 70_000, "gid": 65_535, "additionalGids": [5, 80_000, 80_000, 65_536]}
    call = rig.create(config)
    linux = call.config["linux"]
    first, group = call.first_uid, linux["gidMappings"][0]["hostID"]
    assert linux["uidMappings"][1:] == [{"containerID": 70_000, "hostID": first + MAPPED, "size": 1}]
    assert linux["gidMappings"][1:] == [
        {"containerID": 80_000, "hostID": group + MAPPED, "size": 1},
        {"containerID": 65_536, "hostID": group + MAPPED + 1, "size": 1},
    ]


def test_what_is_mounted_read_only_has_the_containers_owners(rig: Rig) -> None:
    """So a VOLUME's content can be read. What may be written stays the host's, so nobody within owns it."""
    folder = rig.folder / "content"
    folder.mkdir()
    _chown(folder, 1000)
    file = rig.folder / "file"
    file.touch()
    config = rig.config()
    config["mounts"] = [
        {"destination": "/a", "type": "bind", "source": str(folder), "options": ["rbind", "ro"]},
        {"destination": "/b", "type": "bind", "source": str(folder), "options": ["rbind", "rw"]},
        {"destination": "/c", "type": "bind", "source": str(file), "options": ["ro", "bind"]},
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro"]},
    ]
    call = rig.create(config)
    uid, gid = call.first_uid, call.first_uid + 7
    assert call.told["binds"] == {
        "/a": [uid + 1000, gid + 1000],
        "/b": [1000, 1000],
        "/c": [uid, gid],
    }
    assert [mount["source"] for mount in call.config["mounts"]][1::2] == [str(folder), "proc"]


def test_what_is_mounted_below_a_bind_comes_along(rig: Rig) -> None:
    folder = rig.folder / "content"
    (folder / "below").mkdir(parents=True)
    mount = rig.folder / "mount"
    mount.write_text(f"{mount.read_text()}mount --bind '{rig.lower}' '{folder}/below'\n")
    (rig.lower / "deep").touch()
    config = rig.config()
    config["mounts"] = [
        {"destination": "/a", "source": str(folder), "options": ["rbind", "ro"]},
        {"destination": "/b", "source": "/run/gcompute-runc/b0/below/deep", "options": ["rbind", "rw"]},
    ]
    call = rig.create(config)
    assert call.told["binds"]["/b"] == [call.first_uid, call.first_uid + 7]


def test_a_bind_that_cannot_be_mapped_stays_as_it_is(rig: Rig) -> None:
    config = rig.config()
    config["mounts"] = [{"destination": "/a", "source": "/proc", "options": ["rbind", "ro"]}]
    assert rig.create(config).config["mounts"][0]["source"] == "/proc"


def test_nothing_of_it_is_mounted_on_the_machine(rig: Rig) -> None:
    rig.create(rig.config())
    assert "gcompute-runc" not in Path("/proc/self/mountinfo").read_text()


def test_a_root_that_can_be_written_is_refused(rig: Rig) -> None:
    config = rig.config()
    config["root"]["readonly"] = False
    assert "create it with a read-only root" in rig.refusal(config)
    del config["root"]["readonly"]
    assert "create it with a read-only root" in rig.refusal(config)


def test_a_container_that_has_a_user_namespace_is_refused(rig: Rig) -> None:
    assert "an engine without userns-remap" in rig.refusal(rig.config(namespaces=[{"type": "user"}]))
    assert "is set already" in rig.refusal(rig.config(uidMappings=[]))


def test_a_root_that_is_no_overlay_is_refused(rig: Rig) -> None:
    config = rig.config()
    config["root"]["path"] = str(rig.lower)
    assert f"the root {rig.lower} is no overlay" in rig.refusal(config)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "{",
            "{}}",
            "[1,]",
            '{"a":1,}',
            '{"a" 1}',
            '{"a":01}',
            '{"a":1.}',
            '{"a":+1}',
            "{'a':1}",
            "nul",
        ),
        *('{"a":"\n"}', '{"a":"\\x"}', '{"a":"\\u12g4"}', '{"a":"', '{"a":"\\', "\ufeff{}", "{}\0", "NaN"),
        '{"a":' + "[" * 70 + "]" * 70 + "}",
    ],
)
def test_a_configuration_that_is_no_json_is_refused(rig: Rig, text: str) -> None:
    assert "config.json is no valid JSON" in rig.refusal(text)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"root"', '"Root"', "root.path is missing"),
        ('"root"', '"ROOT": {}, "root"', "root.path is missing"),
        ('"path"', '"path": "/", "path"', "root.path is missing"),
        ('"path": "', '"path": "\\u0000', "root.path is missing"),
        ('"readonly": true', '"readonly": true, "readOnly": false', "read-only root"),
        ('"namespaces"', '"Namespaces"', "linux.namespaces is missing"),
    ],
)
def test_members_that_a_reader_in_go_would_take_for_others_are_refused(
    rig: Rig, old: str, new: str, problem: str
) -> None:
    """Go's reader minds no case, and takes the last of two members of one name."""
    assert problem in rig.refusal(json.dumps(rig.config()).replace(old, new, 1))


@pytest.mark.parametrize("escaped", [False, True])
def test_text_beyond_ascii_is_kept(rig: Rig, escaped: bool) -> None:
    folder = rig.folder / "größe 😀"
    folder.mkdir()
    _chown(folder, 5)
    config: dict[str, Any] = rig.config()
    config["mounts"] = [{"destination": "/a", "source": str(folder), "options": ["bind", "ro"]}]
    call = rig.create(json.dumps(config, ensure_ascii=escaped))
    assert call.told["binds"]["/a"][0] == call.first_uid + 5


def _chown(path: Path, owner: int) -> None:
    os.chown(path, owner, owner)
