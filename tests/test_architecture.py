"""The house: which room may import which, and that nothing runs back up. `docs/architecture.md` explains it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fimaq_deploy

ROOT = Path(fimaq_deploy.__file__).parent
VOCABULARY = {"__init__", "contract", "errors", "files", "manifest", "recipe", "target", "version"}
# A room and the rooms that it may import, beside the vocabulary and itself.
MAY_IMPORT = {
    "models": set(),
    "data": {"models"},
    "calibration": {"models", "data"},
    "graph": set(),
    "engines": set(),
    "export": {"calibration", "graph", "models"},
    "graph_calibration": {"calibration", "data", "engines", "export", "graph"},
    "measure": {"graph", "engines", "data"},
    "verify": {"calibration", "export", "engines", "graph", "measure", "models", "data"},
    "report": set(),
    "runtime": {"data", "engines", "measure"},
    "packaging": {"engines", "graph", "runtime"},
    "serving": {"engines", "runtime"},
}
EVERY_ROOM = {*MAY_IMPORT, "pipeline"}
MAY_IMPORT["pipeline"] = EVERY_ROOM - {"pipeline"}
MAY_IMPORT["cli"] = EVERY_ROOM
FUNCTIONS = {"build", "quantize", "evaluate", "export_onnx", "load_engine", "audit", "bench", "compare", "lint"}
FUNCTIONS |= {
    "embed_preprocessing",
    "history",
    "parity",
    "sweep",
    "package",
    "predict",
    "serve",
    "unpack",
    "verify_artifact",
}


# Modules that are run through their callers alone. May only fall.
WITHOUT_A_TEST = 1


def modules() -> dict[str, Path]:
    """Every module of the package by its name without the package's."""
    names = ((".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in ROOT.rglob("*.py"))
    return {name.removesuffix(".__init__"): path for name, path in names}


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The modules of this package that a file imports, also inside functions and for annotations."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fimaq_deploy":
            base = (node.module or "").removeprefix("fimaq_deploy").removeprefix(".")
            yield from (inner if (inner := f"{base}.{one.name}".lstrip(".")) in MODULES else base for one in node.names)


def room_of(name: str) -> str:
    room = name.split(".")[0] or "__init__"
    return "vocabulary" if room in VOCABULARY else room


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__", "__main__"}))
def test_a_room_imports_what_lies_below_it(name: str) -> None:
    room = room_of(name)
    allowed = {"vocabulary", room, *MAY_IMPORT.get(room, ())}
    assert {f"{name} imports {other}" for other in imports(MODULES[name]) if room_of(other) not in allowed} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: set(imports(path)) - {name} for name, path in MODULES.items() if name != "__init__"}
    faces = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    try:
        TopologicalSorter({name: found - {""} - faces for name, found in graph.items() if name not in faces}).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_no_module_is_named_like_a_public_function() -> None:
    """Commands apart: a file of `cli` is its command."""
    assert {name for name in MODULES if name.split(".")[-1] in FUNCTIONS and room_of(name) != "cli"} == set()


def test_the_root_holds_at_most_eight_modules() -> None:
    assert len(list(ROOT.glob("*.py"))) <= 8


def test_no_module_grows_past_400_lines() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_every_room_is_a_package_with_a_sentence_about_it() -> None:
    for folder in (path.parent for path in ROOT.rglob("*.py")):
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


def test_the_page_about_it_says_the_same() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    told = {
        room.strip(" `"): {name.strip(" `") for name in found.split(",") if name.strip()} for _, room, found, *_ in rows
    }
    assert told == {
        room: {"every room"} if found >= EVERY_ROOM - {room} else found for room, found in MAY_IMPORT.items()
    }


def has_a_test(module: Path) -> bool:
    folder = ROOT.parent / "tests" / module.relative_to(ROOT).parent
    return (folder / f"test_{module.name}").exists()


def test_tests_mirror_the_source() -> None:
    """tests/ROOM/test_MODULE.py, as many as there are."""
    found = [path for path in MODULES.values() if not path.name.startswith("__") and not has_a_test(path)]
    names = "\n".join(sorted(path.relative_to(ROOT).as_posix() for path in found))
    assert len(found) <= WITHOUT_A_TEST, f"{len(found)} modules have no test file of their own:\n{names}"
