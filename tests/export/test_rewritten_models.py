"""Rewrites and searches change numbers only: a file of each is read back as it was, and compiles to the same plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.engines.tensorrt import build_engine
from fimaq_deploy.export import export_onnx
from fimaq_deploy.graph.rules import lint
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log

TARGET = "tensorrt-rtx"
SWITCHES = {
    "products": ("scale_search.softmax=products",),
    "values": ("rewrites.values=true",),
    "both": ("scale_search.softmax=products", "rewrites.values=true"),
    "rotation": ("rewrites.rotation=true",),
}
Make = Callable[..., nn.Module]
Quantized = Callable[..., fd.QuantizedModel]


@pytest.fixture
def quantized(random_images: Callable[..., Tensor]) -> Quantized:
    images = random_images(8, 64)
    unlearned = ("reconstruction.iterations=0", "tuning.iterations=0")

    def make(model: nn.Module, *settings: str, preset: str = "w8a8") -> fd.QuantizedModel:
        recipe = fd.Recipe.load(preset).with_settings([*unlearned, *settings])
        return fd.quantize(model, images, recipe, TARGET)

    return make


def encoder(tiny_vit: Make, **changes: object) -> nn.Module:
    return tiny_vit(img_size=64, embed_dim=64, depth=1, **changes)


@pytest.mark.parametrize(
    ("name", "classes", "preset"), [("both", 5, "w8a8"), ("both", 5, "w4a4"), ("rotation", 0, "w8a8")]
)
def test_a_file_of_it_is_read_back(
    tiny_vit: Make,
    random_images: Callable[..., Tensor],
    quantized: Quantized,
    tmp_path: Path,
    name: str,
    classes: int,
    preset: str,
) -> None:
    model, images = encoder(tiny_vit, num_classes=classes), random_images(2, 64, seed=5)
    made = quantized(model, *SWITCHES[name], preset=preset)
    made.save(tmp_path / "q.safetensors")
    loaded = fd.load_quantized(tmp_path / "q.safetensors", encoder(tiny_vit, num_classes=classes, seed=3))
    assert torch.equal(loaded(images), made(images))
    assert loaded.recipe == made.recipe
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "q.safetensors").read_bytes()


def plan_of(model: fd.QuantizedModel, folder: Path) -> dict[str, BlockPlan]:
    path = export_onnx(model, folder / "model.onnx", target=TARGET)
    assert not list(lint(path, TARGET))
    log = build_engine(path, folder / "engine", TARGET, compute_for=[(8, 9)], verbose=True).log
    return {block.name: block for block in audit_log(log, read_structure(path))}


@pytest.mark.slow
def test_they_compile_to_the_plan_of_a_model_without_them(tiny_vit: Make, quantized: Quantized, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = encoder(tiny_vit)
    plain = plan_of(quantized(model), tmp_path)
    assert (plain["blocks.0"].attention, plain["blocks.0"].int8_gemms) == ("int8", 4)
    for name, settings in SWITCHES.items():
        assert plan_of(quantized(model, *settings), tmp_path) == plain, name


@pytest.mark.slow
def test_a_rotated_model_without_a_head_turns_its_answer_back_in_floats(
    tiny_vit: Make, quantized: Quantized, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = encoder(tiny_vit, num_classes=0)
    plain, rotated = (plan_of(quantized(model, *more), tmp_path) for more in ((), SWITCHES["rotation"]))
    assert (rotated["blocks.0"].attention, rotated["blocks.0"].int8_gemms) == ("int8", 4)
    assert not any(block.lost_gemms for block in rotated.values())
    kernels = [sum(block.kernels for block in plan.values()) for plan in (plain, rotated)]
    assert kernels[1] == kernels[0] + 1
