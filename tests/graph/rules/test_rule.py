"""A rule of one's own: one function, registered where it is written, known to the function and to the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from fixtures.commands import run

import fimaq_deploy as fd
from fimaq_deploy.graph.rules import RULES
from fimaq_deploy.graph.rules.rule import Found, Place, rule
from fimaq_deploy.graph.structure import Structure
from fimaq_deploy.target import TARGETS, Target, combine

SAID = "a toy says so"


def toy(found: Structure, target: Target) -> Found:
    node = next(iter(found.graph))
    yield Place(node, node.outputs[0], SAID, "take the toy away")


@pytest.fixture(autouse=True)
def _same_rules_afterwards() -> Iterator[None]:
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.fixture
def file(sketch: Any, tmp_path: Path) -> Path:
    drawn = sketch()
    onnx.save(drawn.model(drawn.linear("x", 64)), tmp_path / "toy.onnx")
    return tmp_path / "toy.onnx"


def holding(file: Path) -> set[str]:
    """The targets for which the toy rule is found broken."""
    return {name for name in TARGETS if any(finding.rule == "toy" for finding in fd.lint(file, name))}


HALF = {name for name, target in TARGETS.items() if target.high_precision == "float16"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"targets": {"onnxruntime-cpu", "tensorrt"}}, {"onnxruntime-cpu", "tensorrt"}),
        ({"targets": ["tensorrt-rtx"]}, {"tensorrt-rtx"}),
        ({"targets": "openvino-cpu"}, {"openvino-cpu"}),
        ({"targets": lambda target: target.high_precision == "float16"}, HALF),
        ({"everywhere": True}, set(TARGETS)),
        ({}, set()),
    ],
)
def test_a_rule_says_where_it_holds(file: Path, where: dict[str, Any], expected: set[str]) -> None:
    assert holding(file) == set()
    rule("toy", "warning", **where)(toy)
    assert holding(file) == expected


def test_the_command_knows_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule("toy", targets={"onnxruntime-cuda"})(toy)
    assert run("lint", file, "--target", "onnxruntime-cuda") == 1
    assert SAID in capsys.readouterr().out
    run("lint", file, "--target", "openvino-cpu")
    assert SAID not in capsys.readouterr().out


def test_it_holds_for_several_targets_as_soon_as_for_one(file: Path) -> None:
    rule("toy", targets={"tensorrt"})(toy)
    both = combine([TARGETS["onnxruntime-cpu"], TARGETS["tensorrt"]])
    assert "toy" in {finding.rule for finding in fd.lint(file, both)}


def test_a_target_may_still_name_it(file: Path) -> None:
    rule("toy")(toy)
    target = Target("mine", "float16", (), lint_rules=frozenset({"toy"}))
    assert "toy" in {finding.rule for finding in fd.lint(file, target)}


def test_a_name_is_given_once_and_a_module_may_be_run_again(file: Path) -> None:
    rule("toy", everywhere=True)(toy)
    rule("toy", "note", everywhere=True)(toy)
    assert RULES["toy"].severity == "note"
    with pytest.raises(ValueError, match="there is another rule toy"):
        rule("toy")(RULES["scale"].check)
    with pytest.raises(ValueError, match="there is another rule scale"):
        rule("scale")(toy)


MODULE = """
from fimaq_deploy.graph.rules.rule import Place, rule

@rule("toy", targets={"tensorrt"})
def toy(found, target):
    yield Place(None, None, "SAID", "")
"""


def test_a_new_file_among_the_rules_is_all_that_it_takes(file: Path, tmp_path: Path) -> None:
    """In a copy of the package, so that ours stays as it is."""
    package = tmp_path / "site" / "fimaq_deploy"
    package.parent.mkdir()
    package.symlink_to(tmp_path / "copy")
    _linked(Path(fd.__file__).parent, tmp_path / "copy", "graph", "rules")
    (tmp_path / "copy" / "graph" / "rules" / "toys.py").write_text(MODULE.replace("SAID", SAID))
    command = [sys.executable, "-m", "fimaq_deploy", "lint", str(file), "--target", "tensorrt"]
    told = subprocess.run(command, cwd=package.parent, env={"PYTHONPATH": "."}, capture_output=True, text=True)
    assert (told.returncode, SAID in told.stdout) == (1, True), told.stderr
    assert not (Path(fd.__file__).parent / "graph" / "rules" / "toys.py").exists()


def test_a_package_brings_a_rule_for_our_targets(file: Path, tmp_path: Path) -> None:
    (tmp_path / "toys.py").write_text(MODULE.replace("SAID", SAID))
    facts = tmp_path / "toys-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[fimaq_deploy.targets]\ntoys = toys\n")
    command = [sys.executable, "-m", "fimaq_deploy", "lint", str(file), "--target", "tensorrt"]
    paths = os.pathsep.join([str(tmp_path), str(Path(fd.__file__).parent.parent)])
    told = subprocess.run(command, env={"PYTHONPATH": paths}, capture_output=True, text=True)
    assert (told.returncode, SAID in told.stdout) == (1, True), told.stderr


def _linked(source: Path, folder: Path, *own: str) -> None:
    """A folder that links to everything in another one; the folders of one path in it are folders of its own."""
    folder.mkdir()
    for each in source.iterdir():
        if each.name != "__pycache__" and each.name not in own[:1]:
            (folder / each.name).symlink_to(each)
    if own:
        _linked(source / own[0], folder / own[0], *own[1:])
