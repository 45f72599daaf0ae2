"""A family is one file: a toy one is added from outside, with no edit elsewhere, and goes the whole road."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.errors import UserError
from fimaq_deploy.models import families
from fimaq_deploy.models.families import families as all_families
from fimaq_deploy.models.families import family_of, find_family, register
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.family import Family
from fimaq_deploy.models.families.roles import Edge, Heads, NormReaders, Stage


class ToyAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inputs(x).unflatten(-1, (3, self.heads, self.size)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.outputs(y.transpose(1, 2).flatten(2))


class ToyBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(width), ToyAttention(width, heads)
        self.between, self.wide, self.narrow = nn.LayerNorm(width), nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.narrow(nn.functional.gelu(self.wide(self.between(x))))


class ToyEncoder(nn.Module):
    """Columns of an image as tokens."""

    def __init__(self, width: int = 32, heads: int = 2, classes: int = 20) -> None:
        super().__init__()
        self.stem, self.layers = nn.Linear(48, width), nn.ModuleList(ToyBlock(width, heads) for _ in range(2))
        self.last, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)
        self.num_classes = classes

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.flatten(1, 2).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.last(x)[:, 0])


class ToyExplicit(ExplicitAttention):
    def __init__(self, attention: Any) -> None:
        super().__init__(attention.inputs, attention.outputs, attention.heads, attention.size**-0.5)
        self.quantize()

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.attend(*self.split(x)))


class _First(Edge):
    def forward(self, images: Tensor) -> Tensor:
        return self.model.stem(images.flatten(1, 2).transpose(1, 2))


class _Last(Edge):
    def features(self, x: Tensor) -> Tensor:
        return self.model.last(x)[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.model.classifier(self.features(x))


class Toy(Family):
    name, kinds = "toy", ("ToyEncoder",)

    def claims(self, model: object) -> bool:
        return isinstance(model, ToyEncoder)

    def stages(self, model: Any) -> list[Stage]:
        blocks = [Stage(f"layers.{number}", layer) for number, layer in enumerate(model.layers)]
        return [Stage("stem", _First(model, ["stem"])), *blocks, Stage("head", _Last(model, ["last", "classifier"]))]

    def image_shape(self, model: Any) -> tuple[int, int, int]:
        return 3, 16, 16

    def heads(self, model: Any) -> Iterator[Heads]:
        for number, layer in enumerate(model.layers):
            one = layer.attention
            yield Heads(f"layers.{number}.attention", one.inputs, one.outputs, one.heads)

    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        return ToyExplicit(attention)

    def norms(self, model: Any) -> Iterator[NormReaders]:
        for number, layer in enumerate(model.layers):
            yield NormReaders(f"layers.{number}.before", layer, "before", (layer.attention.inputs,))
            yield NormReaders(f"layers.{number}.between", layer, "between", (layer.wide,))

    def position(self, layer: str) -> Any:
        return {"stem": "patch_embed", "classifier": "head"}.get(layer)


@pytest.fixture
def toy() -> Iterator[Family]:
    family = register(Toy())
    yield family
    families._registered.remove(family)


@pytest.mark.usefixtures("toy")
def test_a_toy_family_is_quantized_saved_exported_and_run(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model, images = ToyEncoder().eval(), torch.randn(32, 3, 16, 16)
    recipe = fd.Recipe.load("w8a8").with_settings(
        ["reconstruction.iterations=8", "reconstruction.images=32", "tuning.iterations=2"]
    )
    quantized = fd.quantize(model, images, recipe, "tensorrt-rtx")
    assert not quantized.left_alone and len(quantized.plan) == 12
    assert nn.functional.cosine_similarity(quantized(images), model(images)).min() > 0.999
    quantized.save(tmp_path / "q.safetensors")
    loaded = fd.load_quantized(tmp_path / "q.safetensors", model)
    assert torch.equal(loaded(images), quantized(images))
    run = fd.load_engine(fd.export_onnx(loaded, tmp_path / "model.onnx"), optimisations=False)
    np.testing.assert_allclose(run(images.numpy()), quantized(images).numpy(), atol=1e-4)


def test_without_it_the_model_is_refused_by_name() -> None:
    assert find_family(ToyEncoder()) is None
    with pytest.raises(UserError, match=r"^mine is a ToyEncoder: expected a timm"):
        family_of(ToyEncoder(), "mine")


def test_families_that_ship_are_small_files_of_their_own() -> None:
    import timm  # noqa: F401  (its families are asked once it is loaded)

    found = {family.name: family for family in all_families()}
    assert {"vit", "swin"} <= found.keys()
    for family in found.values():
        source = __import__(type(family).__module__, fromlist=["FAMILY"]).__file__
        assert len(Path(source).read_text(encoding="utf-8").splitlines()) <= 150, source
