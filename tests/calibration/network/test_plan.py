"""A plan is saved and read back, and everything after placement lives with what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.learning.convergence import NOTHING
from fimaq_deploy.calibration.network.plan import Plan
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import trace
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.recipe import Recipe

Make = Callable[..., Any]


IMAGES = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


LEARNING = Recipe.load("w4a4").replace(reconstruction={"iterations": 8, "images": 32}, rewrites={"norm": False})


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """The shipped Swin, untrained: 10 classes behind a mean, and patches of 4 pixels, few but quantized."""
    return BUNDLED["swin_digits"].create().eval()


@pytest.fixture(scope="module")
def quantized(original: nn.Module) -> QuantizedModel:
    return quantize(original, IMAGES, LEARNING, ["onnxruntime-cpu", "tensorrt-rtx"])


def test_what_is_left_alone_keeps_its_weights(quantized: QuantizedModel, original: nn.Module) -> None:
    layers = {name for name, _ in quantized_layers(quantized.model)}
    assert set(quantized.left_alone) == {"head.fc"} and "head.fc" not in layers and "patch_embed.proj" in layers
    assert torch.equal(quantized.model.head.fc.weight, original.head.fc.weight)


def test_a_stage_without_error_learns_nothing(original: nn.Module) -> None:
    """Nothing is quantized in or before this patch embedding; the head mends what the blocks did."""
    recipe = LEARNING.replace(patch_embed={"quantize": "never"}, reconstruction={"iterations": 2})
    quantized = quantize(original, IMAGES, recipe, "tensorrt")
    first, *_, last = quantized.history
    assert (first.name, first.loss_before, first.iterations, first.stopped) == ("patch_embed", 0, 0, NOTHING)
    assert (last.name, last.iterations) == ("head", 2)
    biases = [model.patch_embed.proj.bias for model in (quantized.model, original)]
    assert torch.equal(*biases) and not biases[0].requires_grad


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu", "tensorrt-rtx"])
def test_no_rule_of_a_target_is_broken(quantized: QuantizedModel, tmp_path: Path, target: str) -> None:
    path = trace(quantized).write(tmp_path / "model.onnx", target)
    assert lint(path, target) == ()


def test_a_plan_survives_json(quantized: QuantizedModel) -> None:
    assert Plan.from_dict(json.loads(json.dumps(quantized.plan.as_dict()))) == quantized.plan


@pytest.mark.parametrize("fields", [{"a": {"weights": {"bits": 4}}}, {"a": 3}, {"a": {"operands": None, "softmax": 1}}])
def test_a_damaged_plan_is_a_user_error(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="saved plan"):
        Plan.from_dict(fields)
