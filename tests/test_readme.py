"""The README is run: every bash and python block, in order, in one empty folder.

A block that needs a network, a GPU or the user's own files is marked by a comment `<!-- test: skip, REASON -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?P<mark><!-- test: skip, (?P<reason>[^\n]+) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)```", re.S
)


class Block(NamedTuple):
    language: str
    code: str
    skipped: bool


BLOCKS = [Block(found["language"], found["code"], bool(found["mark"])) for found in BLOCK.finditer(README)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.skipped], ids=lambda block: block.language)
def test_a_block_runs(block: Block, folder: Path) -> None:
    command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euc"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, block.code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_there_are_blocks_of_both_languages() -> None:
    assert {block.language for block in BLOCKS if not block.skipped} == {"bash", "python"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.skipped and block.language == "bash"])
def test_a_block_that_is_not_run_has_options_that_exist(block: Block) -> None:
    usage = subprocess.run(
        [sys.executable, "-m", "fimaq_deploy", "build", "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ours = block.code.partition("build")[2]  # behind a launcher's own options
    assert [option for option in re.findall(r"--[a-z-]+", ours) if option not in usage] == []


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)$", README, re.M))
def test_make_targets_exist(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_preset_is_listed() -> None:
    presets = {path.stem for path in (ROOT / "fimaq_deploy" / "recipes").glob("*.yaml")}
    assert {name for name in presets if f"| `{name}` |" not in README} == set()
