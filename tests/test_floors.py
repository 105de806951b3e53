"""The floors of the house: no import runs from a folder to one above it, and nothing imports itself in a circle.

The folders come from the tree; `FLOORS` puts each of them on a floor. A folder may import the floors below its own, not
its neighbours. The modules that lie in a package itself (`sets/assembly.py`) have no floor: they wire the folders or
serve them. But an import through them counts as the folder's own, so that nobody climbs by that stair.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import pytest

from tests.test_architecture import OURS, ROOT, imported, sources

FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    # Lowest first.
    "router": (
        ("routing", "wire"),
        ("choosing", "config", "counting", "workers"),
        ("asking", "dialects", "discovery"),
        ("relay", "rollout"),
        ("admin",),
    ),
    "scheduler": (
        ("billing", "images", "policy", "store/sql"),
        ("registry",),
        ("launchers", "store"),
        ("accounts", "batches", "callbacks", "launchers/nomad"),
    ),
    "sets": (
        ("dresser", "guest", "runtime"),
        ("api", "executor", "telemetry"),
        ("api/native", "api/ugc", "executor/link"),
        ("http",),
    ),
    "ops": (
        ("certificates", "client", "images/model", "setup", "simulator"),
        ("nomad",),
        ("doctor",),
        ("bench", "cli", "images", "local"),
        ("bench_router", "demo", "deploy", "docs", "release_sim"),
    ),
}

Imports = Mapping[str, Mapping[str, int]]
"""For each module, by its path without `.py`: the modules that it imports, and the line where it does."""


def imports_of(texts: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Who imports whom among the sources of `texts` (path → source); `__init__.py` stands for its folder."""
    modules = {_module(path) for path in texts}
    graph: dict[str, dict[str, int]] = {}
    for path, source in texts.items():
        found = graph.setdefault(_module(path), {})
        for line, name in imported(ast.parse(source, path), path):
            target = _nearest(name.replace(".", "/"), modules)
            if target is not None and target != _module(path):
                found.setdefault(target, line)
    return graph


def _module(path: str) -> str:
    return path.removesuffix("/__init__.py").removesuffix(".py")


def _nearest(name: str, modules: set[str]) -> str | None:
    """The module that an imported name is, or lies in."""
    while name:
        if name in modules:
            return name
        name = name.rpartition("/")[0]
    return None


def room_of(module: str, folders: Iterable[str]) -> str | None:
    """The folder of a module, relative to its package; None for a module of the package itself."""
    inside = module.partition("/")[2]
    while inside:
        if inside in folders:
            return inside
        inside = inside.rpartition("/")[0]
    return None


def breaches(package: str, graph: Imports, floors: tuple[tuple[str, ...], ...]) -> list[str]:
    """Each import of `package` that leads to a folder on the same floor or above, with file and line."""
    height = {room: number for number, floor in enumerate(floors) for room in floor}
    found = []
    for module in sorted(graph):
        room = room_of(module, height)
        if room is None or not module.startswith(f"{package}/"):
            continue
        for target, line in graph[module].items():
            for reached in _through_package_modules(target, package, graph, height):
                other = room_of(reached, height)
                if other is None or other == room or height[other] < height[room]:
                    continue
                by = "" if reached == target else f" by way of {target}.py"
                found.append(
                    f"{module}.py:{line}: {package}/{room} must not import {package}/{other}{by}: "
                    f"it lies on {'the same floor' if height[other] == height[room] else 'a floor above'}"
                )
    return found


def _through_package_modules(target: str, package: str, graph: Imports, rooms: Mapping[str, int]) -> set[str]:
    """`target`, and where it is a module of the package itself, all that it leads to."""
    seen = {target}
    todo = [target]
    while todo:
        module = todo.pop()
        if room_of(module, rooms) is None and module.startswith(f"{package}/"):
            fresh = graph.get(module, {}).keys() - seen
            seen |= fresh
            todo += fresh
    return seen


def circles(graph: Imports) -> list[str]:
    """The modules that import themselves in a circle, or lie between two circles."""
    left = {name: set(known) - {name} for name, known in graph.items()}
    while free := [name for name, known in left.items() if not known & left.keys()]:
        for name in free:
            del left[name]
    while free := [name for name in left if not any(name in known for known in left.values())]:
        for name in free:
            del left[name]
    return sorted(left)


def whole_tree() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources()}


@pytest.fixture(scope="module")
def graph() -> Imports:
    return imports_of(whole_tree())


@pytest.mark.parametrize("package", OURS)
def test_no_import_runs_up_or_to_a_neighbour(package: str, graph: Imports) -> None:
    found = breaches(package, graph, FLOORS[package])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", OURS)
def test_every_folder_has_its_floor(package: str) -> None:
    folders = {
        PurePosixPath(path).parent.relative_to(package).as_posix()
        for path in whole_tree()
        if path.startswith(f"{package}/")
    }
    placed = [room for floor in FLOORS[package] for room in floor]
    assert sorted(placed) == sorted(folders - {"."}), "put each folder of the tree into FLOORS once"


def test_no_module_imports_itself_in_a_circle(graph: Imports) -> None:
    assert "router/relay/traffic" in graph["router/relay/plane"], "the graph is not empty"
    # A package's `__init__.py` that offers names of its own modules is no circle of theirs.
    modules = {name: {each: 0 for each in known if not _is_folder(each)} for name, known in graph.items()}
    assert circles(modules) == []


def _is_folder(module: str) -> bool:
    return (ROOT / module).is_dir()


TEXTS = {
    "house/cellar/box.py": "",
    "house/hall/door.py": "from house.cellar import box",
    "house/attic/roof.py": "from house.cellar.box import lid\nfrom house.hall.door import Door",
    "house/main.py": "import house.attic.roof, house.hall.door",
}
HOUSE = (("cellar",), ("hall", "kitchen"), ("attic",))


def found_with(path: str, source: str) -> list[str]:
    return breaches("house", imports_of({**TEXTS, path: source}), HOUSE)


def test_a_house_in_order_passes() -> None:
    assert breaches("house", imports_of(TEXTS), HOUSE) == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        (
            "house/cellar/rat.py",
            "import os\nfrom house.attic import roof",
            "house/cellar/rat.py:2: house/cellar must not import house/attic: it lies on a floor above",
        ),
        (
            "house/cellar/rat.py",
            "def f():\n    import house.attic.roof",
            "house/cellar/rat.py:2: house/cellar must not import house/attic: it lies on a floor above",
        ),
        (
            "house/kitchen/stove.py",
            "from house.hall.door import Door",
            "house/kitchen/stove.py:1: house/kitchen must not import house/hall: it lies on the same floor",
        ),
    ],
)
def test_an_import_upward_or_to_a_neighbour_is_told_with_its_place(
    path: str, source: str, expected: str
) -> None:
    assert found_with(path, source) == [expected]


def test_a_module_of_the_package_itself_is_no_stair() -> None:
    found = found_with("house/cellar/rat.py", "import house.main")
    assert sorted(line.split(": ")[1] for line in found) == [
        "house/cellar must not import house/attic by way of house/main.py",
        "house/cellar must not import house/hall by way of house/main.py",
    ]


def test_a_circle_is_seen() -> None:
    graph = {"a": {"b": 1}, "b": {"c": 1}, "c": {"b": 1}, "d": {}, "e": {"a": 1, "d": 1}}
    assert circles(graph) == ["b", "c"]
