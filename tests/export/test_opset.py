"""Files of other opsets: ONNX Runtime loads each, and they answer what the one of opset 21 does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fixtures.versions import knows_opset_23, quantizes_float16_exactly
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.network.plan import Plan
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import Traced, export_fp_onnx, trace
from fimaq_deploy.export.opset import OPSETS, check_opset, require_opset

QUICK = {"reconstruction": {"iterations": 0}, "tuning": {"iterations": 0}, "scale_search": {"candidates": 1}}
TARGETS = ("onnxruntime-cpu", "tensorrt-rtx")


@pytest.fixture(scope="module")
def traced(tiny_vit: Any, random_images: Any) -> Callable[[str], Traced]:
    """Quantized for both kinds of floats; some activations are bent by the tanh that approximates."""

    def make(preset: str) -> Traced:
        model = tiny_vit(embed_dim=64, act_layer=lambda: nn.GELU("tanh"))
        model.blocks[0].mlp.act = nn.GELU()
        return trace(fd.quantize(model, random_images(8), fd.Recipe.load(preset).replace(**QUICK), TARGETS))

    return make


def run(path: Path, images: torch.Tensor) -> Any:
    return fd.load_engine(path, optimisations=False)(images.numpy())


# Below 19 quantizers of float16 read float32, which every version rounds: the file of 21 would be the one that is off.
@pytest.mark.parametrize("target", [TARGETS[0], pytest.param(TARGETS[1], marks=quantizes_float16_exactly)])
def test_each_opset_answers_what_21_does(target: str, traced: Any, random_images: Any, tmp_path: Path) -> None:
    graph, images = traced("w4a8"), random_images(4)
    expected = run(graph.write(tmp_path / "21.onnx", target), images)
    for opset in OPSETS:
        path = graph.write(tmp_path / f"{opset}.onnx", target, opset)
        proto = onnx.load(path)
        assert [(one.domain, one.version) for one in proto.opset_import] == [("", opset)]
        onnx.checker.check_model(proto, full_check=True)
        kinds = {node.op_type for node in proto.graph.node}
        assert ("Gelu" in kinds) == (opset > 19) and ("Erf" in kinds and "Tanh" in kinds) == (opset < 20)
        if opset < 23 or knows_opset_23:
            np.testing.assert_allclose(run(path, images), expected, atol=0.02 * np.abs(expected).max())
    assert graph.write(tmp_path / "again.onnx", target).read_bytes() == (tmp_path / "21.onnx").read_bytes()


def test_axes_of_reductions(tmp_path: Path, random_images: Any) -> None:
    """SwinV2 norms by ReduceL2, and ends in a mean."""
    size = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    model, images = SwinTransformerV2(**size, num_classes=5).eval(), random_images(2, 32)
    expected = run(export_fp_onnx(model, tmp_path / "21.onnx"), images)
    path = export_fp_onnx(model, tmp_path / "17.onnx", opset=17)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    np.testing.assert_allclose(run(path, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [17, 19])
def test_int4_is_refused_with_the_reason(opset: int, traced: Any, tmp_path: Path) -> None:
    graph = traced("w4a16")
    with pytest.raises(UserError, match=rf"^--opset {opset}: '.*' dequantizes INT4 or scales by block"):
        graph.write(tmp_path / "model.onnx", "onnxruntime-cpu", opset)
    assert not (tmp_path / "model.onnx").exists()
    graph.write(tmp_path / "model.onnx", "onnxruntime-cpu", 23)


def test_others_are_no_choice() -> None:
    with pytest.raises(UserError, match=r"^--opset 13: expected one of 17, 19, 21, 23"):
        check_opset(13)


@pytest.mark.parametrize(
    ("preset", "target", "sm", "needed"),
    [
        ("w4a8", "onnxruntime-cpu", None, 17),
        ("w4a16", "onnxruntime-cpu", None, 21),
        ("fp8", "tensorrt-rtx", 89, 19),
        ("nvfp4", "tensorrt-rtx", 120, 23),
    ],
)
def test_what_a_plan_needs_is_said_before_anything_is_learned(
    preset: str, target: str, sm: int | None, needed: int, tiny_vit: Any, random_images: Any
) -> None:
    """That the files of these presets need the same is `test_opsets_of_models`."""
    recipe, steps = fd.Recipe.load(preset).replace(**QUICK), list[str]()

    def accept(plan: Plan) -> None:
        require_opset(plan, None)
        for opset in OPSETS:
            if opset >= needed:
                require_opset(plan, opset)
                continue
            with pytest.raises(UserError, match=rf"^--opset {opset}: .* came with opset {needed}: take that or newer"):
                require_opset(plan, opset)
        raise UserError("asked for no more")

    with pytest.raises(UserError, match=r"^asked for no more$"):
        fd.quantize(
            tiny_vit(embed_dim=64),
            random_images(2),
            recipe,
            target,
            sm=sm,
            accept=accept,
            progress=lambda *told: steps.append(told[-1]),
        )
    assert not steps
