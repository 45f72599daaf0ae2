"""Models inside of wrappers: the one inside is quantized, and what a wrapper does besides is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.families import family_of, find_family
from fimaq_deploy.models.families.wrapped import innermost, transparent


class Around(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Any:
        return self.net(images)


class Softened(Around):
    def forward(self, images: Tensor) -> Any:
        return self.net(images).softmax(-1)


class TwoOfThem(Around):
    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net)
        self.other = other


WRAPPERS: dict[str, Any] = {
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "one's own": Around,
    "all at once": lambda model: torch.compile(nn.DataParallel(Around(Around(model)))),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_model_inside_is_quantized(
    wrapper: str, tiny_vit: Any, random_images: Any, quick_recipe: Any, tmp_path: Path
) -> None:
    model, images = tiny_vit(), random_images(16)
    model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}
    wrapped = WRAPPERS[wrapper](model)
    assert innermost(wrapped) is model
    assert describe_model(wrapped).mean == (0.1, 0.2, 0.3)
    recipe = quick_recipe(reconstruction={"iterations": 0})
    quantized = fd.quantize(wrapped, images, recipe)
    assert torch.equal(quantized(images), fd.quantize(model, images, recipe)(images))
    quantized.save(tmp_path / "q.safetensors")
    assert torch.equal(fd.load_quantized(tmp_path / "q.safetensors", wrapped)(images), quantized(images))


def test_its_original_is_what_runs_beside_it(tiny_vit: Any) -> None:
    model = tiny_vit()
    family = family_of(nn.DataParallel(model))
    assert family.original(nn.DataParallel(model)) is model
    around = Around(model)
    assert family.original(nn.DataParallel(around)) is around
    assert transparent(nn.DataParallel(around)) is around


def test_a_wrapper_that_answers_an_object_answers_the_one_that_is_deployed() -> None:
    hf = pytest.importorskip("transformers")
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = hf.Dinov2Model(hf.Dinov2Config(**size, image_size=16, patch_size=8)).eval()
    images, wrapped = torch.randn(2, 3, 16, 16), Around(model)
    found = family_of(wrapped).original(wrapped)(images)
    assert torch.equal(found["pooler_output"], model(images).pooler_output)


def test_what_a_wrapper_does_besides_is_refused(tiny_vit: Any, random_images: Any, quick_recipe: Any) -> None:
    with pytest.raises(UserError, match="the copy that would be quantized does not compute what the model does"):
        fd.quantize(Softened(tiny_vit()), random_images(16), quick_recipe())


def test_a_wrapper_around_features_only_is_known_by_what_is_inside() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", features_only=True)
    assert innermost(Around(model)) is model
    assert describe_model(Around(model)).input_shape == (3, 224, 224)


def test_what_holds_no_model_that_is_known_is_no_wrapper(tiny_vit: Any) -> None:
    assert find_family(Around(nn.Linear(2, 2))) is None
    assert find_family(nn.DataParallel(nn.Linear(2, 2))) is None
    assert find_family(TwoOfThem(tiny_vit(), tiny_vit())) is None
