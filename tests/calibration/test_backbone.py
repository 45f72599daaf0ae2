"""The encoder inside somebody's model learns from what it gets there, and goes back to its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.detectors import detector, segmenter, swin_body
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.backbone import encoder_inputs
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.inside import find_backbone

QUICK = [
    "reconstruction.iterations=4",
    "reconstruction.batch_size=4",
    "scale_search.candidates=8",
    "tuning.iterations=0",
]


def quick(name: str = "w8a8") -> fd.Recipe:
    return fd.Recipe.load(name).with_settings(QUICK)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_the_encoder_gets_is_what_the_model_makes_of_images() -> None:
    model, images = detector(), noise(4, 3, 20, 20)
    assert model.training
    found = list(encoder_inputs(model, find_backbone(model), images.split(2)))
    assert [each.shape for each in found] == [(2, 3, 32, 32)] * 2
    transformed, _ = model.eval().transform(list(images))  # type: ignore[operator]
    torch.testing.assert_close(torch.cat(found), transformed.tensors)
    model.train()
    list(encoder_inputs(model, find_backbone(model), images.split(2)))
    assert all(module.training for module in model.modules())


@torch.no_grad()
def test_a_detector_is_quantized_saved_and_put_together(tmp_path: Path) -> None:
    model, images = detector(), noise(8, 3, 24, 24)
    quantized = fd.quantize(model, images, quick())
    assert (quantized.place, quantized.input_shape) == ("backbone.body", (3, 32, 32))
    whole = quantized.inside(model)
    found, expected = whole(images[:2]), model.eval()(images[:2])
    assert [set(each) for each in found] == [set(each) for each in expected]
    torch.testing.assert_close(found[0]["scores"], expected[0]["scores"], atol=0.05, rtol=0)
    quantized.save(tmp_path / "q.safetensors")
    for given in (model, model.get_submodule("backbone.body")):
        loaded = fd.load_quantized(tmp_path / "q.safetensors", given)
        again = loaded.inside(model)(images[:2])
        assert all(torch.equal(one["boxes"], other["boxes"]) for one, other in zip(found, again, strict=True))


def test_four_bits_tune_an_encoder_inside_and_none_by_itself(tmp_path: Path) -> None:
    model, images = segmenter(), noise(8, 3, 32, 32)
    few = [*QUICK[:-1], "reconstruction.iterations=1", "tuning.quick_iterations=2"]
    recipe = fd.Recipe.load("w4a4").with_settings(few)
    inside = fd.quantize(model, images, recipe, resume=tmp_path)
    assert (inside.recipe.tuning.iterations, inside.history[-1].name) == (2, "joint tuning")
    for plain in (
        fd.quantize(model, images, recipe.with_settings(["tuning.iterations=0"])),
        fd.quantize(model.get_submodule("encoder"), images, recipe),
    ):
        assert plain.recipe.tuning.iterations == 0
        assert "joint tuning" not in {record.name for record in plain.history}
    again = fd.quantize(model, images, inside.recipe, resume=tmp_path)  # the same build: its blocks are taken
    inside.save(tmp_path / "one")
    again.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@torch.no_grad()
def test_a_segmenter_by_its_path() -> None:
    model, images = segmenter(), noise(8, 3, 32, 32)
    quantized = fd.quantize(model, images, quick("w4a8"), backbone="encoder")
    found, expected = quantized.inside(model)(images), model(images)
    assert nn.functional.cosine_similarity(found.flatten(1), expected.flatten(1)).min() > 0.99


@torch.no_grad()
def test_a_detector_of_transformers(tmp_path: Path) -> None:
    hf = pytest.importorskip("transformers")
    body = hf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=4
    )
    body.out_features = ["stage2", "stage3"]
    pair: dict[str, Any] = {"feat_strides": [4, 8], "encoder_in_channels": [32, 64], "decoder_in_channels": [16, 16]}
    narrow = ("encoder_hidden_dim", "encoder_ffn_dim", "d_model", "decoder_ffn_dim")
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_layers": 1, "num_queries": 4}
    config = hf.RTDetrConfig(backbone_config=body, encode_proj_layers=[1], num_feature_levels=2, hidden_expansion=0.5,
                             **pair, **heads, **dict.fromkeys(narrow, 16))  # fmt: skip
    model, images = hf.RTDetrForObjectDetection(config).eval(), noise(4, 3, 32, 32)
    quantized = fd.quantize(model, images, quick())
    assert find_backbone(model).name == quantized.place
    found, expected = quantized.inside(model)(images), model(images)
    torch.testing.assert_close(found.logits, expected.logits, atol=0.05, rtol=0)
    assert found.pred_boxes.shape == expected.pred_boxes.shape


class Growing(nn.Module):
    """Shows its encoder images of another size each time."""

    def __init__(self, pad: int = 4, reached: bool = True, times: int = 1) -> None:
        super().__init__()
        self.encoder, self.pad, self.reached, self.times, self.calls = swin_body(), pad, reached, times, 0

    def forward(self, images: Tensor) -> Any:
        self.calls += 1
        shown = nn.functional.pad(images, (0, 0, 0, self.pad * self.calls)).repeat(self.times, 1, 1, 1)
        return self.encoder(shown) if self.reached else self.encoder.forward(shown)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Growing(), r"^the encoder 'encoder' gets images of 3×36×32 and of 3×40×32: a quantized file has one size"),
        (Growing(0, reached=False), r"^the model never calls its encoder 'encoder' \(FeatureListNet\)"),
        (Growing(0, times=2), r"^the encoder 'encoder' gets 4 images for 2 of the model: expected one for each"),
    ],
)
def test_what_no_file_can_be_made_of_is_told(model: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(encoder_inputs(model, find_backbone(model), noise(4, 3, 32, 32).split(2)))
