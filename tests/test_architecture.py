"""The house as docs/architecture.md draws it: who imports whom, no circle, one meaning for each class name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# package -> the packages that it may import, beside itself
MAY_IMPORT = {
    "add": (),
    "eval": ("add",),
    "reports": ("eval", "add"),
    "mini": ("eval", "add"),
    "baselines": ("add",),
    "addbench": ("reports", "eval", "baselines", "add"),
    "benchmarks": ("addbench", "eval", "add"),
}
METHOD_ROOMS = {
    "add.config": ("add.errors",),
    "add.data": ("add.config", "add.digests", "add.errors", "add.files"),
}


def modules() -> dict[str, ast.Module]:
    found = {}
    for package in MAY_IMPORT:
        for file in (ROOT / package).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> set[str]:
    """Names of this project's modules that import statements among `nodes` load."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in MODULES}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_room_imports_only_rooms_below_it(package: str) -> None:
    allowed = {package, *MAY_IMPORT[package]}
    for name, tree in MODULES.items():
        if name.split(".")[0] == package:
            wrong = {other for other in imported(ast.walk(tree)) if other.split(".")[0] not in allowed}
            assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("room", METHOD_ROOMS)
def test_settings_and_data_readers_know_nothing_of_the_networks(room: str) -> None:
    for name, tree in MODULES.items():
        if name.startswith(f"{room}."):
            for other in imported(ast.walk(tree)) - {"add"}:
                assert other.startswith((room, *METHOD_ROOMS[room])), f"{name} imports {other}"


def test_no_module_imports_itself_by_a_detour() -> None:
    TopologicalSorter({name: imported(tree.body) - {name} for name, tree in MODULES.items()}).prepare()


def test_a_public_class_name_stands_for_one_thing() -> None:
    classes = [
        node.name
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [name for name, count in Counter(classes).items() if count > 1] == []
