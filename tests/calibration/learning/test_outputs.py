"""Any output as one matrix, compared by what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.fisher import kl_divergence, softmax_fisher
from fimaq_deploy.calibration.learning.outputs import Outputs, tensors_of
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.errors import UserError

Make = Callable[..., Any]


def test_class_logits_are_compared_by_kl_and_stay_as_they_are() -> None:
    logits, other = torch.randn(2, 5, 7)
    outputs = Outputs.of(logits, 7)
    assert outputs.is_plain and outputs.joined(logits) is logits
    assert torch.equal(outputs.divergence(other, logits, 3.0), kl_divergence(other, logits, 3.0))
    assert torch.equal(outputs.second_order(other, logits), softmax_fisher(other, logits))


@pytest.mark.parametrize("shape", [(4, 1), (4, 7), (4, 6, 8), (4, 3, 5, 5)])
def test_everything_else_is_compared_by_its_relative_error(shape: tuple[int, ...]) -> None:
    y, error = torch.randn(shape) * 9, torch.randn(shape)
    outputs = Outputs.of(y, 0)
    expected = error.square().mean() / (2 * y.square().mean())
    found = outputs.divergence(outputs.joined(y + error), outputs.joined(y), 20.0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(outputs.second_order(outputs.joined(error), outputs.joined(y)), expected)


def test_several_outputs_are_added_up() -> None:
    first, second = torch.randn(3, 4), torch.randn(3, 2, 2)
    outputs = Outputs.of({"logits": first, "map": second}, 4)
    assert [(part.name, part.kind, part.columns) for part in outputs.parts] == [
        ("logits", "classes", 4),
        ("map", "values", 4),
    ]
    moved = {"logits": first + 1, "map": second}
    assert outputs.divergence(outputs.joined(moved), outputs.joined((first, second)), 1.0) < 1e-6, "a shift of logits"


def test_later_outputs_alone_are_compared_with_their_own_columns() -> None:
    """From some stage of a chain on, what was handed out before it is missing."""
    first, second = torch.randn(3, 4), torch.randn(3, 2)
    outputs = Outputs.of({"first": first, "second": second}, 0)
    reference, moved = outputs.joined({"first": first, "second": second}), second + 0.1
    found = outputs.divergence(moved, reference, 1.0)
    both = outputs.divergence(torch.cat([first, moved], 1), reference, 1.0)
    torch.testing.assert_close(found, both)
    torch.testing.assert_close(outputs.second_order(moved - second, reference), found)


def test_names_follow_the_output() -> None:
    y = torch.zeros(2, 3)
    assert list(tensors_of(y)) == ["output"]
    assert list(tensors_of((y, [y, y]))) == ["output_0", "output_1.0", "output_1.1"]
    assert list(tensors_of({"a": y, "b": {"c": y, "count": torch.tensor([3])}})) == ["a", "b.c"]
    with pytest.raises(UserError, match="without tensors"):
        tensors_of({"text": "none"})


class TwoHeads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(width, 24), nn.Linear(width, 20)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.b(x)


def two_heads(model: Any) -> Any:
    model.head = TwoHeads(32)
    return model


@pytest.mark.parametrize("loss", ["dplr", "divergence"])
@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"num_classes": 1}, None),
        ({"num_classes": 0}, None),
        ({"num_classes": 0, "global_pool": ""}, None),
        ({"num_classes": 24}, two_heads),
    ],
    ids=["regression", "embedding", "tokens", "two heads"],
)
def test_a_model_with_any_output_learns(
    tiny_vit: Make, random_images: Make, quick_recipe: Make, settings: dict[str, Any], change: Any, loss: str
) -> None:
    model, images = tiny_vit(**settings), random_images(32)
    model = change(model) if change else model
    rewrites = {"norm": True}
    shared = {"images": 32, "batch_size": 16, "loss": loss}
    recipe = quick_recipe(reconstruction={**shared, "iterations": 60}, tuning={"iterations": 8}, rewrites=rewrites)
    still = quick_recipe(reconstruction={**shared, "iterations": 0}, tuning={"iterations": 0})

    def error(quantized: nn.Module) -> float:
        expected, found = tensors_of(model(images)), tensors_of(quantized(images))
        assert [one.shape for one in found.values()] == [one.shape for one in expected.values()]
        return sum(float((found[n] - y).square().sum() / y.square().sum()) for n, y in expected.items())

    learned = quantize(model, images, recipe, "tensorrt", sensitivity=8)
    assert error(learned) < error(quantize(model, images, still, "tensorrt"))
    assert all(one.alone >= 0 for one in learned.sensitivity)
    assert any(one.alone > 0 for one in learned.sensitivity)
