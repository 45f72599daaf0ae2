from __future__ import annotations

import pytest
from fixtures.commands import document, run

from fimaq_deploy.recipe import Recipe


def test_a_line_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == Recipe.presets()
    assert any("blocks of 64" in line for line in lines if line.split()[0] == "w4a16")


def test_the_same_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "recipes")["recipes"]
    assert [Recipe.model_validate(fields) for fields in found] == [Recipe.load(name) for name in Recipe.presets()]
