from __future__ import annotations

import re

import pytest
from fixtures.commands import document, run

from fimaq_deploy.cli.doctor import _ability
from fimaq_deploy.engines.runtimes import RUNTIMES


def test_a_line_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    text = capsys.readouterr().out
    for name, runtime in RUNTIMES.items():
        assert re.search(rf"^{name} +{re.escape(_ability(*runtime.availability()))}$", text, re.M)


def test_the_same_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "doctor")
    assert found["schema"] == "fimaq-deploy/doctor/1"
    assert {one["name"]: (one["not_built"], one["not_run"]) for one in found["targets"]} == {
        name: runtime.availability() for name, runtime in RUNTIMES.items()
    }
    assert "onnx" in found["environment"]["packages"]


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ((None, None), "builds and runs"),
        ((None, "no GPU"), "builds, does not run: no GPU"),
        (("not here", "not here"), "no: not here"),
    ],
)
def test_ability_in_words(reasons: tuple[str | None, str | None], said: str) -> None:
    assert _ability(*reasons) == said
