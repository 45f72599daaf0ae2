"""How long a build took and what it was made with."""

from __future__ import annotations

from typing import Any

import pytest

from fimaq_deploy import report as r
from fimaq_deploy.report.build_page.sections.environment import environment, recipe_text


def machine(report: r.Report) -> dict[str, str]:
    *_, exhibit = environment(report).exhibits
    assert exhibit.id == "machine"
    return dict(row for row in exhibit.rows)  # type: ignore[misc]


def test_the_longest_step_is_the_title(full_report: r.Report) -> None:
    steps, _ = environment(full_report).exhibits
    assert steps.title == "The build took 813.5 s, 100 % of them to quantize"
    assert steps.rows == (("load", "1.0"), ("quantize", "812.5"))


@pytest.mark.parametrize("steps", [[], [r.Step(name="load", seconds=0.0)]])
def test_no_time_is_no_chart(full_report: r.Report, steps: list[r.Step]) -> None:
    found = environment(full_report.model_copy(update={"steps": steps})).exhibits
    assert [exhibit.id for exhibit in found] == ["machine"]


def test_model_and_machine_are_told(full_report: r.Report) -> None:
    told = machine(full_report)
    assert told["model"] == "deit_s, pretrained weights, 22,050,664 parameters, 1000 classes"
    assert told["input"] == "3 × 224 × 224"
    assert told["GPU"] == "NVIDIA L4, driver 570.1"
    assert told["seed"] == "3"
    for name, version in full_report.environment.packages.items():
        assert f"{name} {version}" in told["packages"]


def test_a_machine_without_a_gpu_says_so(full_report: r.Report) -> None:
    bare = full_report.environment.model_copy(update={"gpu": None, "driver": None})
    assert machine(full_report.model_copy(update={"environment": bare}))["GPU"] == "none"


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (
            {"name": "w4a8", "weights": {"bits": 4}, "activations": {"bits": 8}},
            "w4a8, 4-bit weights, 8-bit activations",
        ),
        ({"name": "mine", "weights": {"bits": 3}}, "mine, 3-bit weights"),
        ({"name": "mine", "weights": {"format": "fp8"}}, "mine"),
        ({"name": "w8a8"}, "w8a8"),
    ],
)
def test_a_recipe_is_its_name_and_its_bits(full_report: r.Report, recipe: dict[str, Any], text: str) -> None:
    assert recipe_text(full_report.model_copy(update={"recipe": recipe})) == text
