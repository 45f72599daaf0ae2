"""Small models of timm's own classes through calibration and export, compiled, and held against their FP16 twins.

`benchmarks/audit.py` does the same at full size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.export import export_fp_onnx, trace
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.target import Target, find_target
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log, kernel_counts
from fimaq_deploy.verify.layer_audit import builder_log
from fimaq_deploy.verify.promises import EXPECTED, broken_promises

pytest.importorskip("tensorrt_rtx")
pytestmark = pytest.mark.slow  # `make test-exports` runs them

TARGET = find_target("tensorrt-rtx")
PROMISES = (*EXPECTED, "no-more-kernels")
QUICK = {"reconstruction": {"iterations": 0}, "tuning": {"iterations": 0}, "scale_search": {"candidates": 1}}
Compile = Callable[..., tuple[BlockPlan, ...]]


def swin() -> nn.Module:
    """Shifted windows of 49 tokens, one patch merging, and a head behind the mean of 49 tokens."""
    return SwinTransformer(img_size=112, embed_dim=96, depths=(2, 1, 1), num_heads=(3, 6, 12), num_classes=100)


def vit() -> nn.Module:
    return VisionTransformer(embed_dim=192, depth=2, num_heads=3, num_classes=100)


MODELS: dict[str, Callable[[], nn.Module]] = {"swin": swin, "vit": vit}


def plan(path: Path, twin: dict[str, int] | None = None) -> tuple[BlockPlan, ...]:
    return audit_log(builder_log(path, find_runtime(TARGET.name), [(8, 9)]), read_structure(path), twin)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """The layer plan of a model beside its twin's."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    models = {name: make().eval() for name, make in MODELS.items()}

    @cache
    def twin(name: str) -> dict[str, int]:
        return kernel_counts(plan(export_fp_onnx(models[name], folder / f"{name}.onnx", target=TARGET)))

    def run(name: str, preset: str, target: Target = TARGET, **changes: object) -> tuple[BlockPlan, ...]:
        images = torch.randn(2, *image_shape(models[name]), generator=torch.Generator().manual_seed(0))
        recipe = Recipe.load(preset).replace(**QUICK, **changes)
        quantized = quantize(models[name], images, recipe, TARGET.name)
        return plan(trace(quantized).write(folder / "model.onnx", target), twin(name))

    return run


@pytest.mark.parametrize("preset", ["w8a8", "w4a8", "w4a4", "w4a16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_block_keeps_every_promise(compiled: Compile, name: str, preset: str) -> None:
    blocks = compiled(name, preset)
    assert broken_promises(blocks, PROMISES) == ()
    layers = [block for block in blocks if block.name != "patch_embed"]
    as_written = [block.weight_only_gemms if preset == "w4a16" else block.int8_gemms for block in layers]
    assert as_written == [block.gemms for block in layers]
    attention = {block.attention for block in blocks if "blocks" in block.name}
    assert attention == {"float16" if preset == "w4a16" else "int8"}
    assert [block.name for block in blocks if block.left_alone] == (["head"] if name == "swin" else [])


FLOATS = {"fp8": ("fp8_gemms", "float8"), "w8a8-fp8attention": ("int8_gemms", "float8")}


@pytest.mark.slow
@pytest.mark.parametrize("preset", FLOATS)
def test_floats_of_8_bits_run_as_they_are_written(compiled: Compile, preset: str) -> None:
    blocks, (gemms, attention) = compiled("vit", preset), FLOATS[preset]
    assert broken_promises(blocks, EXPECTED) == ()
    layers = [block for block in blocks if "blocks" in block.name]
    assert [getattr(block, gemms) for block in layers] == [block.gemms for block in layers] == [4, 4]
    assert {block.attention for block in layers} == {attention}


def test_a_head_behind_a_mean_in_integers_takes_more_kernels(compiled: Compile) -> None:
    (broken,) = broken_promises(compiled("swin", "w8a8", head={"quantize": "always"}), PROMISES)
    assert broken.startswith("head: ")


def test_a_patch_convolution_takes_one_kernel_more_before_swins_first_block(compiled: Compile) -> None:
    product, convolution = (
        compiled("swin", "w4a4", replace(TARGET, patches=patches)) for patches in ("product", "convolution")
    )
    assert sum(block.kernels for block in convolution) == sum(block.kernels for block in product) + 1
    (broken,) = broken_promises(convolution, PROMISES)
    assert broken.startswith("layers.0.blocks.0: ")


@pytest.mark.parametrize("name", MODELS)
def test_attention_fuses_in_a_bfloat16_file_too(compiled: Compile, name: str) -> None:
    """Swin's with its bias only because it computes in float16."""
    blocks = compiled(name, "w8a8", replace(TARGET, high_precision="bfloat16"))
    assert broken_promises(blocks, PROMISES) == ()
    assert {block.attention for block in blocks if "blocks" in block.name} == {"int8"}
