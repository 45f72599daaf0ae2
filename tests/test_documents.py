"""README and docs are run: every bash and python block of a page, in order, in one folder that is empty at first.

A block that needs a network, a GPU or the user's own files is marked `<!-- test: skip, REASON -->`; its options are
checked all the same, and `pytest -rs` lists the reasons. A block that takes minutes is marked `<!-- test: slow -->` and
runs under `make test-slow`. A `console` block is for what makes the environment itself: make, pip, git.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from fimaq_deploy.recipe import Recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- test: (?P<mark>skip|slow)(?:, (?P<reason>[^\n]+))? -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.S | re.M,
)
LANGUAGES = {"bash", "python", "console", "yaml", "json", "text", "py", "make", "cpp", "toml"}


class Block(NamedTuple):
    page: Path
    number: int
    language: str
    code: str
    mark: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}-{self.number}-{self.language}"


def blocks_of(page: Path) -> Iterator[Block]:
    for number, found in enumerate(FENCE.finditer(page.read_text(encoding="utf-8"))):
        yield Block(page, number, found["language"], found["code"], found["mark"], found["reason"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.language in ("bash", "python")]


def marks(block: Block) -> list[pytest.MarkDecorator]:
    return {"skip": [pytest.mark.skip(reason=block.reason or "")], "slow": [pytest.mark.slow]}.get(block.mark or "", [])


@pytest.fixture(scope="session")
def after(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Block]], Path]:
    """The folder that blocks leave when they are run in order. Pages that begin alike share the beginning."""

    @cache
    def folder(steps: tuple[tuple[str, str], ...]) -> Path:
        place = tmp_path_factory.mktemp("page") / "work"
        if not steps:
            place.mkdir()
            return place
        shutil.copytree(folder(steps[:-1]), place)
        run(*steps[-1], place)
        return place

    return lambda blocks: folder(tuple((block.language, block.code) for block in blocks))


def run(language: str, code: str, folder: Path) -> None:
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", [pytest.param(block, marks=marks(block), id=str(block)) for block in RUN])
def test_a_block_runs(block: Block, after: Callable[[list[Block]], Path]) -> None:
    before = [one for one in RUN if one.page == block.page and one.number <= block.number and one.mark != "skip"]
    after([one for one in before if one.mark is None or block.mark == "slow"])


@pytest.mark.parametrize("block", [block for block in RUN if block.mark == "skip"], ids=str)
def test_a_block_that_is_not_run_says_why_and_has_options_that_exist(block: Block) -> None:
    assert block.reason
    for name, options in commands(block.code):
        assert set(options) - known_options(name) == set(), f"of {name}"


def commands(code: str) -> Iterator[tuple[str, list[str]]]:
    """Each call of ours in a shell block, with the options that it is given."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words[:-1]):
            if word in ("fimaq-deploy", "fimaq_deploy"):
                yield words[start + 1], [one.partition("=")[0] for one in words[start + 2 :] if one.startswith("--")]
                break


@cache
def known_options(name: str) -> set[str]:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.S | re.M)
    assert section is not None, f"no command {name}"
    return set(re.findall(r"^\| `(--[a-z-]+)", section[1], re.M))


def test_there_are_blocks_of_both_languages() -> None:
    assert {block.language for block in RUN if block.mark is None} == {"bash", "python"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language not in ("bash", "python")], ids=str)
def test_a_block_of_another_language_is_no_way_round(block: Block) -> None:
    assert block.language in LANGUAGES
    if block.language == "console":
        first = {line.split()[0] for line in block.code.replace("\\\n", " ").splitlines() if line}
        assert first <= {"make", "pip", "git", "python"}, "what is run belongs into a bash block"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_is_yaml_and_a_recipe_a_recipe(block: Block) -> None:
    found = yaml.safe_load(block.code)
    if isinstance(found, dict) and set(found) <= set(Recipe.model_fields):
        Recipe.model_validate(found)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return (link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        reached.add(page)
        there = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        left += [one for one in there if one.suffix == ".md" and one not in reached]
    assert {str(page.relative_to(ROOT)) for page in PAGES if page not in reached} == set()


def test_every_preset_has_a_row() -> None:
    page = (ROOT / "docs" / "how-to" / "recipes.md").read_text(encoding="utf-8")
    assert {name for name in Recipe.presets() if f"| `{name}` |" not in page} == set()
