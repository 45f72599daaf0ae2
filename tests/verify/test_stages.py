"""A quantized model against its file, as written and fused, and against files with one wrong number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import load_quantized
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import export_onnx, trace
from fimaq_deploy.models.load import load_model
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.verify.stages import compare_stages
from fimaq_deploy.verify.stored_weights import differing_weights

# Of a stage's output, relative to its spread, when every quantizer got the runtime's integers: float sums alone.
ROUNDING = 1e-4
CHANGED = "blocks.1"


def test_every_quantizer_is_within_one_step_of_the_file_as_written(folder, images):
    made, model = folder
    report = compare_stages(model, made / "model.onnx", images, threads=1)
    assert [stage.name for stage in report.stages] == [stage.name for stage in model.stages]
    assert report.as_written and report.first_parting is None and report.agreement == 1
    assert all(stage.flips.largest_step <= 1 and stage.flips.flipped < 1e-3 for stage in report.stages)
    assert max(stage.relative_difference for stage in report.stages) < ROUNDING


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_the_fused_file_is_judged_by_the_integers_behind_each_stage(folder, images, target):
    if target == "openvino-cpu":
        pytest.importorskip("openvino")
    made, model = folder
    report = compare_stages(model, made / "model.onnx", images, target, optimisations=True, threads=1)
    assert not report.as_written and report.first_parting is None and report.agreement == 1
    assert all(stage.flips.largest_step <= 1 for stage in report.stages)


def test_before_a_head_in_floats_eight_bits_stand_in(images, changed, tmp_path):
    """No quantizer reads the last block: it agrees with the file all the same, and not with a changed one."""
    recipe = Recipe.load("w8a8").replace(reconstruction={"iterations": 0}, head={"quantize": "never"})
    model = quantize(load_model("vit_digits"), images, recipe, "tensorrt-rtx")
    path = export_onnx(model, tmp_path / "model.onnx")
    report = compare_stages(model, path, images, optimisations=True, threads=1)
    assert report.first_parting is None and all(stage.flips.largest_step <= 1 for stage in report.stages)
    shift = np.resize(np.array([0.3, -0.3], np.float32), 64)
    other = changed(tmp_path, tmp_path, "blocks.3.mlp.fc2.bias", lambda bias: bias + shift[: len(bias)])
    parting = compare_stages(model, other, images, optimisations=True, threads=1).first_parting
    assert parting is not None and parting.name == "blocks.3"


@pytest.mark.parametrize("optimisations", [False, True])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        (f"{CHANGED}.mlp.fc2.bias", lambda bias: bias + np.resize(np.array([0.3, -0.3], np.float32), bias.shape)),
        (f"{CHANGED}.mlp.fc1.input_quantizer.scale", lambda scale: scale * np.float32(1.25)),
        (f"{CHANGED}.attn.proj.q_weight", lambda weight: -weight),
    ],
)
def test_the_first_stage_that_parts_is_named(folder, images, changed, tmp_path, name, change, optimisations):
    made, model = folder
    path = changed(made, tmp_path, name, change)
    report = compare_stages(model, path, images, optimisations=optimisations, threads=1)
    assert report.first_parting is not None and report.first_parting.name == CHANGED
    # The stages behind it got the file's own tokens, so they do not part, while the whole chain does.
    behind = report.stages[3:]
    assert all(stage.differing_share < 0.05 < stage.accumulated_share for stage in behind)


def test_without_quantizers_floats_are_judged(exported, images):
    model, path = exported("w4a16")
    batch = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    report = compare_stages(model, path, batch, threads=1)
    assert [stage.flips for stage in report.stages] == [None] * 3 and report.first_parting is None


def test_the_file_of_another_model_is_refused(folder, exported, images):
    with pytest.raises(UserError, match=r"has no node of stage 'blocks\.0'"):
        compare_stages(folder[1], exported("w8a8")[1], images)


@pytest.mark.parametrize("preset", ["fp8", pytest.param("w8a8-fp8attention", marks=pytest.mark.slow)])
def test_floats_of_8_bits_are_the_same_in_torch_and_in_the_file(tiny_vit, random_images, tmp_path, preset):
    recipe = Recipe.load(preset).replace(reconstruction={"iterations": 2, "images": 8})
    quantized = quantize(tiny_vit(num_classes=24, img_size=48), random_images(8, size=48), recipe, "tensorrt-rtx")
    assert quantized.left_alone == {}
    quantized.save(tmp_path / "quantized.safetensors")
    common, own = tmp_path / "model.onnx", tmp_path / "model.tensorrt-rtx.onnx"
    traced = trace(quantized)
    traced.write(common)
    traced.write(own, "tensorrt-rtx")
    assert differing_weights(tmp_path / "quantized.safetensors", common) == []
    assert differing_weights(common, own) == []
    for optimisations in (False, True):
        report = compare_stages(quantized, common, random_images(4, size=48), optimisations=optimisations)
        assert report.first_parting is None and report.largest_output_difference < 1e-4
    loaded = load_quantized(tmp_path / "quantized.safetensors", tiny_vit(num_classes=24, img_size=48))
    assert torch.equal(loaded(random_images(4, size=48)), quantized(random_images(4, size=48)))
