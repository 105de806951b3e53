"""Orders become variables of the template, or are refused with the member at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from scheduler.launchers.nomad.job import OrderRefused, check, variables, written
from scheduler.launchers.nomad.orders import Add, NewSlot
from scheduler.launchers.nomad.settings import TEMPLATE, RegistrarSettings, SettingsError
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources

SETTINGS = RegistrarSettings(
    set_name="a", socket="/run/registrar.sock", max_slots_per_job=2, registries=("registry.example",)
)
DIGEST = "sha256:" + "0123456789abcdef" * 4
POOL = PoolKey("acme", DIGEST, Resources(50, 256), Isolation.SHARED, ("avx2",))


def slot(number: int, **changes: str) -> NewSlot:
    return msgspec.structs.replace(NewSlot(f"s-{number}", "ab" * 32, f"inst/door{number}"), **changes)


ORDER = Add(
    request=1,
    pool=POOL,
    image="registry.example/cat:1",
    run=f"registry.example/cat@{DIGEST}",
    places=("/tmp", "/dev/shm", "/var/room"),
    covered=("/held",),
    names=("PATH", "LANG"),
    slots=(slot(1), slot(2)),
    executor_limits_cpu=True,
)


def order(**changes: Any) -> Add:
    return msgspec.structs.replace(ORDER, **changes)


def pool(**changes: Any) -> PoolKey:
    return msgspec.structs.replace(POOL, **changes)


def test_an_order_becomes_the_variables_of_the_template() -> None:
    check(ORDER, SETTINGS)
    values = variables(ORDER, SETTINGS, "gc-a-job", "0" * 12, "guest-1", "slots-1.json")
    assert (values["cpu"], values["cpu_hard_limit"]) == (50, False)
    assert (values["memory_mib"], values["max_run_s"]) == (256, 90_000)
    assert values["arguments"] == [
        *("4096", "/tmp", "/dev/shm", "/var/room", "--", "PATH", "HOSTNAME", "HOME", "PATH", "LANG"),
    ]
    assert values["places"][0] == {"path": "/tmp", "size_bytes": 512 << 20}
    # A VOLUME whose files the executor uncovers: the engine must make no volume of it, and the guest leaves it alone.
    assert values["places"][-1] == {"path": "/held", "size_bytes": 4096}
    assert "/held" not in values["arguments"]
    assert values["slots"][1] == {"id": "s-2", "token": "ab" * 32, "door": "inst/door2", "node": ""}
    assert values["seccomp"] == "/var/lib/general-compute/seccomp/slots-1.json"


def test_a_job_that_reserves_all_of_a_slots_cpu_limits_it_too() -> None:
    whole = msgspec.structs.replace(SETTINGS, cpu_reservation_percent=100)
    for made, settings in ((ORDER, whole), (order(executor_limits_cpu=False), SETTINGS)):
        values = variables(made, settings, "gc-a-job", "0" * 12, "guest-1", "slots-1.json")
        assert (values["cpu"], values["cpu_hard_limit"]) == (500, True)


def test_the_registrar_names_the_runtime_of_all_its_slots() -> None:
    named = msgspec.structs.replace(SETTINGS, runtime="gcompute-runc")
    for settings, runtime in ((SETTINGS, ""), (named, "gcompute-runc")):
        values = variables(ORDER, settings, "gc-a-job", "0" * 12, "guest-1", "slots-1.json")
        assert values["runtime"] == runtime


def test_the_template_declares_each_variable_and_no_other() -> None:
    values = variables(ORDER, SETTINGS, "gc-a-job", "0" * 12, "guest-1", "slots-1.json")
    declared = {
        line.split('"')[1] for line in TEMPLATE.read_text().splitlines() if line.startswith("variable ")
    }
    assert declared == values.keys()
    assert written({"a": 'say "b"', "c": [1]}) == 'a = "say \\"b\\""\nc = [1]\n'


def test_variables_are_written_in_the_escapes_that_hcl_knows() -> None:
    """HCL has no escape for a backspace or a form feed, and none of two halves for a character beyond U+FFFF."""
    written_as = {
        "/data/\N{GRINNING FACE}": '"/data/\N{GRINNING FACE}"',
        "a\bb\fc": r'"a\u0008b\u000cc"',
        r"a\b\\f": r'"a\\b\\\\f"',
        "a\nb\x1b": r'"a\nb\u001b"',
    }
    for value, text in written_as.items():
        assert written({"x": [value]}) == f"x = [{text}]\n"


def test_nodes_run_images_that_they_have_and_pull_others_from_the_registries_that_are_allowed() -> None:
    hub = msgspec.structs.replace(SETTINGS, registries=("docker.io", "Registry.Example:443"))
    for run, settings in (
        (DIGEST, msgspec.structs.replace(SETTINGS, registries=())),
        (f"registry.example:443/cat@{DIGEST}", SETTINGS),
        (f"registry.example/acme/cat@{DIGEST}", hub),
        (f"acme/cat@{DIGEST}", hub),
        (f"index.docker.io/library/cat@{DIGEST}", hub),
    ):
        check(order(run=run), settings)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("account", order(pool=pool(account="Acme/../x"))),
        ("image_digest", order(pool=pool(image_digest="latest"))),
        ("image", order(image="${attr.unique.hostname}")),
        ("run", order(run="no such/Image")),
        ("registry", order(run=f"registry.example:5000/cat@{DIGEST}")),
        ("registry", order(run=f"169.254.1.1/cat@{DIGEST}")),
        ("registry", order(run=f"cat@{DIGEST}")),
        ("cpu_percent", order(pool=pool(resources=Resources(6401, 256)))),
        ("memory_mib", order(pool=pool(resources=Resources(50, 300_000)))),
        ("cpu_features", order(pool=pool(cpu_features=("avx2}",)))),
        ("node", order(node="${node.unique.id}")),
        ("slots", order(slots=())),
        ("slots", order(slots=(slot(1), slot(2), slot(3)))),
        ("slots", order(slots=(slot(1), slot(1)))),
        ("slots.slot_id", order(slots=(slot(1, slot_id='x" {'),))),
        ("slots.door", order(slots=(slot(1, door="../../etc"),))),
        ("slots.token", order(slots=(slot(1, token="short"),))),
        ("places", order(places=("/data/${NOMAD_SECRETS_DIR}",))),
        ("places", order(places=("/data/%{ if true }",))),
        ("places", order(places=("/de\u0301pot",))),
        ("places", order(places=("/gc/run",))),
        ("places", order(places=("/proc",))),
        ("places", order(places=("data",))),
        ("places", order(places=("/data/../etc",))),
        ("places", order(places=("/",))),
        ("covered", order(covered=("/gc/nomad",))),
        ("covered", order(covered=("/data/${NOMAD_SECRETS_DIR}",))),
        ("covered", order(covered=("/a",) * 40)),
        ("env", order(names=("A${b}",))),
        ("env", order(env={"A": "${NOMAD_TOKEN}"})),
        ("env", order(env={"NOMAD_SECRETS_DIR": "/secrets"})),
        ("env", order(env={"GENERAL_COMPUTE_SLOT_TOKEN": "mine"})),
        ("env", order(env={"A": "x" * 70_000})),
    ],
)
def test_an_order_that_breaks_a_rule_is_refused_by_the_name_of_its_member(field: str, bad: Add) -> None:
    with pytest.raises(OrderRefused) as refused:
        check(bad, SETTINGS)
    assert refused.value.field == field


def test_the_token_comes_from_a_file_or_a_variable_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("secret-token\n")
    by_file = msgspec.structs.replace(SETTINGS, token_file=str(file))
    assert by_file.token() == "secret-token"
    assert "secret-token" not in repr(by_file)
    monkeypatch.setenv("GC_TOKEN_OF_TEST", "other-token")
    assert msgspec.structs.replace(SETTINGS, token_variable="GC_TOKEN_OF_TEST").token() == "other-token"
    assert SETTINGS.token() == ""
    none = tmp_path / "none"
    for changes, said in (
        ({"token_variable": "GC_NOT_SET_IN_TEST"}, "token_variable: GC_NOT_SET_IN_TEST is not set"),
        ({"token_file": str(none)}, f"token_file: {none}: No such file or directory$"),
        ({"token_file": str(file), "token_variable": "X"}, "token_file and token_variable are both set"),
    ):
        with pytest.raises(SettingsError, match=said):
            msgspec.structs.replace(SETTINGS, **changes).token()
