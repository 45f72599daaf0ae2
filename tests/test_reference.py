"""The reference pages say what the code does today, and the generator sees all of it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import fimaq_deploy
from fimaq_deploy.cli import app

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"


def load() -> ModuleType:
    spec = spec_from_file_location("generate_reference", REFERENCE / "generate.py")
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = load()


@pytest.mark.parametrize("name", GENERATE.PAGES)
def test_a_page_is_up_to_date(name: str) -> None:
    """After a change: make reference"""
    assert (REFERENCE / name).read_text(encoding="utf-8") == GENERATE.text(GENERATE.PAGES[name])


def test_a_page_that_someone_edited_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(GENERATE, "HERE", tmp_path)
    assert GENERATE.main([]) == 0 and GENERATE.main(["--check"]) == 0
    with (tmp_path / "cli.md").open("a") as page:
        page.write("one more line")
    assert GENERATE.main(["--check"]) == 1
    assert "cli.md is stale" in capsys.readouterr().out


def test_every_command_and_every_option_has_a_meaning() -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert all(f"\n## {command.callback.__name__}\n" in page for command in app.registered_commands)
    options = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line for line in options if line.endswith("|  |")] == []


def test_every_public_name_is_in_the_api() -> None:
    page = (REFERENCE / "api.md").read_text(encoding="utf-8")
    assert [name for name in fimaq_deploy.__all__ if name != "__version__" and f"\n## {name}\n" not in page] == []
