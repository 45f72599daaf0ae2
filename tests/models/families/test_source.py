"""A family whose models are no chain: a toy with three projections and an output of its own becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Chain, Shape
from fimaq_deploy.models.families.chained import FAMILY as CHAINED
from fimaq_deploy.models.families.head import Head, Mean
from fimaq_deploy.models.families.parts import Attention, Block, Mlp, joined, tokens
from fimaq_deploy.models.families.source import Source

WIDTH, HEADS = 8, 2


class Model(nn.Module):
    """q, k and v are three products and the answer is an object."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.positions = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 4, WIDTH))
        self.q, self.k, self.v, self.out, self.wide, self.narrow = (nn.Linear(WIDTH, WIDTH) for _ in range(6))
        self.before, self.between, self.last = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.classes = nn.Linear(WIDTH, 3)

    def embed(self, images: Tensor) -> Tensor:
        return self.stem(images).flatten(2).mT + self.positions

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.embed(images)
        q, k, v = (
            layer(self.before(x)).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.narrow(nn.functional.gelu(self.wide(self.between(x))))
        return {"logits": self.classes(self.last(x).mean(1))}


class Toy(Source):
    name, kinds = "toy", ("Model",)

    def claims(self, model: object) -> bool:
        return isinstance(model, Model)

    def image_shape(self, model: Any) -> Shape:
        return 3, 8, 8

    def answer(self, model: Any) -> str:
        return "logits"

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        attention = Attention(joined(model.q, model.k, model.v), model.out, HEADS)
        return {
            "patch_embed": tokens(model.stem, model.embed, shape),
            "blocks.0": Block(model.before, attention, model.between, Mlp(model.wide, nn.GELU(), model.narrow)),
            "head": Head(model.last, Mean(), None, model.classes),
        }


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


def test_the_chain_answers_what_the_model_does(model: Model) -> None:
    images = torch.randn(5, 3, 8, 8)
    made = Toy().as_chain(model)
    assert isinstance(made, Chain)
    torch.testing.assert_close(made(images), model(images)["logits"])
    assert (made.input_shape, made.num_classes, made.answer) == ((3, 8, 8), 3, "logits")


def test_it_shares_the_models_numbers_and_knows_their_names(model: Model) -> None:
    made: Any = Toy().as_chain(model)
    assert made.blocks[0].mlp.fc1 is model.wide and made.origins["blocks.0.mlp.fc1"] == "wide"
    assert made.origins["head.classifier"] == "classes" and "blocks.0.attn.qkv" not in made.origins


@pytest.mark.parametrize("training", [True, False])
def test_it_is_in_the_mode_of_the_model(model: Model, training: bool) -> None:
    assert all(module.training == training for module in Toy().as_chain(model.train(training)).modules())


def test_another_shape_is_asked_of_the_model(model: Model) -> None:
    with pytest.raises(UserError, match=r"^the model takes no images of \(3, 12, 8\): "):
        Toy().as_chain(model, (3, 12, 8))


def test_what_is_asked_of_the_model_is_answered_of_its_chain(model: Model) -> None:
    family, made = Toy(), Toy().as_chain(model)
    assert [stage.name for stage in family.stages(model)] == ["patch_embed", "blocks.0", "head"]
    assert [heads.name for heads in family.heads(model)] == ["blocks.0.attn"]
    assert [reader.norm for reader in family.norms(model)] == [model.before, model.between]
    assert family.head_reads_a_mean(model)
    found: Any = family.stream(model)
    expected: Any = CHAINED.stream(made)
    assert found.writers == expected.writers == (model.stem, model.out, model.narrow)
    assert [reader.norm for reader in found.readers] == [model.before, model.between, model.last]
    attention = made.get_submodule("blocks.0.attn")
    assert family.spelled_out(attention) is attention


def test_the_original_answers_what_is_deployed_by_its_name() -> None:
    model, images = Model(), torch.randn(2, 3, 8, 8)
    assert torch.equal(Toy().original(model)(images)["logits"], model(images)["logits"])
    assert [*Toy().original(model)(images)] == ["logits"]
