"""Everything that learns and judges on a real NVIDIA GPU. Skipped where there is none."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration import device as devices
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.export import export_onnx
from fimaq_deploy.measure.accuracy import evaluate
from fimaq_deploy.verify.stages import compare_stages

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")

Make = Callable[..., Any]
GPU = torch.device("cuda", 0)

SETTINGS: dict[str, dict[str, Any]] = {
    **{loss: {"reconstruction": {"loss": loss}} for loss in ("mse", "brecq", "dplr", "diag", "low_rank", "feature")},
    "least_squares": {"reconstruction": {"loss": "least_squares"}, "rewrites": {"norm": True, "heads": True}},
    "divergence": {"reconstruction": {"loss": "divergence"}},
    "nearest": {"reconstruction": {"rounding": "nearest"}},
    "adaround": {"reconstruction": {"rounding": "adaround"}},
    "sign_gradient": {"reconstruction": {"rounding": "sign_gradient"}},
    "rotation": {"rewrites": {"rotation": True}},
    "float32": {"reconstruction": {"precision": "float32"}},
    "tf32": {"reconstruction": {"precision": "tf32"}},
    "bfloat16": {"reconstruction": {"precision": "bfloat16"}},
    "tuned": {"tuning": {"iterations": 6, "batch_size": 4}},
    "w8a8": {"weights": {"bits": 8}, "activations": {"bits": 8}},
}
QUICK = {"weight_scale_lr": 1e-3, "other_lr": 1e-3, "iterations": 12, "rank": 3, "warm_up": 0.5, "batch_size": 4}


@pytest.fixture
def recipe(quick_recipe: Make) -> Make:
    def make(**changes: Any) -> Any:
        settings = {**QUICK, "loss": "dplr", "rounding": "straight_through", **changes.pop("reconstruction", {})}
        return quick_recipe(reconstruction=settings, **changes)

    return make


def answers(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images.to(next(model.parameters()).device)).cpu()


def learned(model: nn.Module, images: Tensor, recipe: Any, **options: Any) -> QuantizedModel:
    """Quantized on the GPU, where it stays; what cannot be recorded is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = quantize(copy.deepcopy(model).to(GPU), images, recipe, "tensorrt", device=GPU, **options)
    assert all(tensor.device == GPU for tensor in (*found.parameters(), *found.buffers()))
    return found


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("model", ["tiny_vit", "tiny_swin", "tiny_deit"])
def test_the_gpu_learns_as_well_as_the_host(
    request: pytest.FixtureRequest, random_images: Make, recipe: Make, model: str, settings: dict[str, Any]
) -> None:
    """Two roads of rounding part soon, so what is compared is how near each comes to the original."""
    if settings == SETTINGS["rotation"] and model == "tiny_swin":
        pytest.skip("Swin's residual stream cannot be rotated")
    original, images = request.getfixturevalue(model)(), random_images(16, 32 if model == "tiny_swin" else 16)
    expected = answers(original, images)
    there = answers(learned(original, images, recipe(**settings)), images)
    here = answers(quantize(original, images, recipe(**settings), "tensorrt"), images)
    assert distance(there, expected) < 1.5 * distance(here, expected) + 1e-3


@pytest.mark.parametrize("memory_bytes", [0, 2**20])
def test_activations_that_do_not_fit_are_streamed(
    tiny_vit: Make, random_images: Make, recipe: Make, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    whole = learned(tiny_vit(), random_images(16), recipe())
    monkeypatch.setattr(devices.Cuda, "spare_bytes", lambda self: 0)
    streamed = learned(tiny_vit(), random_images(16), recipe(), memory_bytes=memory_bytes)
    images = random_images(16)
    assert distance(answers(streamed, images), answers(whole, images)) < 0.3


def test_a_recorded_step_learns_what_a_called_one_does(
    tiny_vit: Make, random_images: Make, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph draws other random numbers, so both ways are held against the original."""
    model, images = tiny_vit(depth=1), random_images(12)
    expected = answers(model, images)
    recorded = learned(model, images, recipe())
    monkeypatch.setattr(devices.Cuda, "records", False)
    called = learned(model, images, recipe())
    assert [record.iterations for record in recorded.history] == [record.iterations for record in called.history]
    assert distance(answers(recorded, images), expected) < 1.3 * distance(answers(called, images), expected)


def test_patience_sensitivity_and_resume(tiny_vit: Make, random_images: Make, recipe: Make, tmp_path: Path) -> None:
    settings = {"iterations": 80, "patience": 1, "weight_lr": 1e-6, "scale_lr": 1e-6, "loss": "mse"}
    model, images = tiny_vit(), random_images(16)
    whole = learned(model, images, recipe(reconstruction=settings), resume=tmp_path, sensitivity=8)
    assert any(record.stopped == "converged" for record in whole.history)
    sorted(tmp_path.glob("*.safetensors"))[-1].unlink()
    again = learned(model, images, recipe(reconstruction=settings), resume=tmp_path)
    assert distance(answers(again, images), answers(whole, images)) < 0.05


def test_it_is_saved_judged_and_exported_from_there(
    tiny_vit: Make, random_images: Make, recipe: Make, tmp_path: Path
) -> None:
    model, images = tiny_vit(), random_images(16)
    there = learned(model, images, recipe())
    there.save(tmp_path / "quantized.safetensors")
    here = load_quantized(tmp_path / "quantized.safetensors", model)
    assert distance(answers(there, images), answers(here, images)) < 1e-2  # one integer of an activation may flip
    scores = [evaluate(found, images, labels=[0] * 16).top1 for found in (there, here)]
    assert abs(scores[0] - scores[1]) <= 100 / 16
    for name, found in (("there", there), ("here", here)):
        export_onnx(found, tmp_path / f"{name}.onnx", target="tensorrt")
    assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()
    file = export_onnx(here, tmp_path / "model.onnx")
    assert compare_stages(there.cpu(), file, images).agreement == 1
