from __future__ import annotations

import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.findings.float_range import LARGEST_FLOAT16, MARGIN, Peak, choose_type, largest_values
from fimaq_deploy.models.families.roles import Stage


class Scores(nn.Module):
    """x·xᵀ, scaled down before anybody outside sees it."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * self.size
        return (y @ y.transpose(-2, -1)).softmax(-1) @ x


def stages(*sizes: float) -> list[Stage]:
    return [Stage(f"blocks.{number}", Scores(float(size))) for number, size in enumerate(sizes)]


def test_every_operator_inside_a_stage_is_seen() -> None:
    images = torch.ones(9, 2, 4)
    peaks = largest_values(stages(1, 100), images)
    assert [peak.stage for peak in peaks] == ["blocks.0", "blocks.1"]
    assert [peak.value for peak in peaks] == [4, 40000]
    assert "mm" in peaks[1].operator


def test_the_last_image_counts_too() -> None:
    images = torch.zeros(20, 1, 2)
    images[-1] = 3
    (peak,) = largest_values(stages(1), images)
    assert peak.value == 18


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (1.0, "float16"),
        (LARGEST_FLOAT16 / MARGIN, "float16"),
        (LARGEST_FLOAT16 / MARGIN + 1, "bfloat16"),
        (1e9, "bfloat16"),
        (float("inf"), "bfloat16"),
        (float("nan"), "bfloat16"),
    ],
)
def test_the_type_holds_the_largest_value_with_a_margin(value: float, chosen: str) -> None:
    found, reason = choose_type([Peak("patch_embed", "aten.add", 2.0), Peak("blocks.7", "aten.bmm", value)])
    assert found == chosen
    assert ("BF16" in reason) == (chosen == "bfloat16")
    assert value < 2 or "blocks.7, aten.bmm" in reason


def test_nothing_finite_is_reported_as_it_is() -> None:
    (peak,) = largest_values(stages(float("nan")), torch.ones(1, 2, 2))
    assert choose_type([peak, Peak("blocks.1", "aten.add", 1.0)])[0] == "bfloat16"
