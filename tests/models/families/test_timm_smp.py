"""Models of segmentation-models-pytorch, the real ones: what their encoders hand out comes back in its places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fimaq_deploy as fd
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.inside import find_backbone

smp = pytest.importorskip("segmentation_models_pytorch")

SIZES = {"img_size": (32, 48), "patch_size": 16, "embed_dim": 32, "num_heads": 2}


def dpt(name: str = "vit_tiny_patch16_224", **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {**SIZES, "encoder_output_indices": [0, -1], "decoder_intermediate_channels": (16, 16)}
    depth = {"encoder_depth": 2, "decoder_fusion_channels": 16}
    return smp.DPT(f"tu-{name}", encoder_weights=None, classes=3, **{**depth, **sizes, **changes}).eval()


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}])
def test_the_chain_answers_the_same_maps_and_tokens(changes: dict[str, Any]) -> None:
    encoder = dpt(**changes).encoder
    family: Any = family_of(encoder)
    family.check(encoder)
    images = torch.randn(2, *family.image_shape(encoder))
    found, (maps, fronts) = family.as_chain(encoder)(images), encoder(images)
    assert list(found) == ["blocks_0", "blocks_11"]
    own_maps, own_fronts = family.reply(encoder, list(found.values()))
    for own, there in zip(own_maps, maps, strict=True):
        assert torch.allclose(own, there, atol=1e-5)
    for own, there in zip(own_fronts, fronts, strict=True):
        assert (own is None and there is None) or torch.allclose(own, there, atol=1e-5)


@pytest.mark.slow
def test_dpt_is_quantized_in_place_and_its_engine_stands_in_it(quick_recipe: Any, tmp_path: Path) -> None:
    model, images = dpt(), torch.randn(4, 3, 32, 48)
    quantized = fd.quantize(model, images, quick_recipe(reconstruction={"iterations": 0}))
    assert find_backbone(model).name == "encoder"
    file = fd.export_onnx(quantized, tmp_path / "encoder.onnx")
    with torch.no_grad():
        there, whole = model(images), quantized.inside(model)(images)
        deployed = fd.splice(model, fd.load_engine(file))(images)
    assert torch.nn.functional.cosine_similarity(whole.flatten(), there.flatten(), 0) > 0.99
    assert (deployed - whole).abs().max() < 0.1 * whole.std()


@torch.no_grad()
def test_any_size_where_the_encoder_takes_it() -> None:
    encoder, images = dpt(dynamic_img_size=True).encoder, torch.randn(1, 3, 64, 64)
    family: Any = family_of(encoder)
    found = family.as_chain(encoder, (3, 64, 64))(images)
    maps, _ = family.reply(encoder, list(found.values()))
    assert torch.allclose(maps[-1], encoder(images)[0][-1], atol=1e-5)
    with pytest.raises(UserError, match="call set_input_size"):
        family.reply(encoder, [torch.zeros(1, 1 + 15, 32)])


@pytest.mark.parametrize("decoder", ["Unet", "UPerNet", "Segformer"])
def test_other_decoders_stand_on_an_encoder_that_is_found(decoder: str) -> None:
    swin = {"img_size": 32, "window_size": 2, "embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
    model = getattr(smp, decoder)("tu-swin_tiny_patch4_window7_224", encoder_weights=None, classes=3, **swin).eval()
    inside, images = find_backbone(model), torch.randn(2, 3, 32, 32)
    assert inside.name == "encoder.model"
    with torch.no_grad():
        assert torch.allclose(
            fd.splice(model, inside.family.as_chain(inside.encoder))(images), model(images), atol=1e-4
        )


def test_other_models_than_a_plain_vit_are_refused() -> None:
    model = dpt("eva02_tiny_patch14_224", img_size=32, class_token=True)
    with pytest.raises(UserError, match="expected a plain VisionTransformer"):
        family_of(model.encoder).check(model.encoder)
