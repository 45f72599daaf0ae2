"""Names of `transformers` under timm's; `tests/models/test_hugging_face.py` compares the numbers with its models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fimaq_deploy.models.translations import SCHEMES
from fimaq_deploy.models.translations.hugging_face import HUGGING_FACE

ANCHOR = "embeddings.patch_embeddings.projection.weight"


def translated(*names: str, prefix: str = "") -> dict[str, Tensor]:
    named = {name: torch.full((1, 1), float(number)) for number, name in enumerate((prefix + ANCHOR, *names))}
    return {name: tensor for name, tensor in HUGGING_FACE.translate(named, prefix).items() if tensor.max() > 0}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.distillation_token", "dist_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"),
        ("layernorm.weight", "norm.weight"),
        ("encoder.layer.11.layernorm_before.bias", "blocks.11.norm1.bias"),
        ("layers.11.layernorm_after.bias", "blocks.11.norm2.bias"),
        ("encoder.layer.0.attention.output.dense.weight", "blocks.0.attn.proj.weight"),
        ("layers.0.attention.o_proj.weight", "blocks.0.attn.proj.weight"),
        ("encoder.layer.0.intermediate.dense.weight", "blocks.0.mlp.fc1.weight"),
        ("encoder.layer.0.output.dense.weight", "blocks.0.mlp.fc2.weight"),
        ("encoder.layer.3.layer_scale2.lambda1", "blocks.3.ls2.gamma"),
        ("encoder.layer.3.mlp.weights_in.bias", "blocks.3.mlp.fc1.bias"),
        ("classifier.weight", "head.weight"),
        ("cls_classifier.weight", "head.weight"),
        ("distillation_classifier.bias", "head_dist.bias"),
        ("something.of.theirs", "something.of.theirs"),
    ],
)
def test_names(theirs: str, ours: str) -> None:
    assert set(translated(theirs)) == {ours}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("embeddings.norm.weight", "patch_embed.norm.weight"),
        ("encoder.layers.0.blocks.1.layernorm_before.weight", "layers.0.blocks.1.norm1.weight"),
        ("encoder.layers.0.blocks.1.output.dense.weight", "layers.0.blocks.1.mlp.fc2.weight"),
        (
            "encoder.layers.1.blocks.0.attention.self.relative_position_bias_table",
            "layers.1.blocks.0.attn.relative_position_bias_table",
        ),
        ("encoder.layers.1.downsample.reduction.weight", "layers.2.downsample.reduction.weight"),
        ("classifier.bias", "head.fc.bias"),
    ],
)
def test_names_of_swin_whose_stages_begin_with_the_merging(theirs: str, ours: str) -> None:
    block = "encoder.layers.3.blocks.0.layernorm_after.bias"
    assert set(translated(block, theirs)) == {"layers.3.blocks.0.norm2.bias", ours}


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.mask_token",
        "pooler.dense.weight",
        "encoder.layers.0.blocks.0.attention.self.relative_position_index",
    ],
)
def test_what_timm_has_not_is_dropped(name: str) -> None:
    assert translated(name) == {}


@pytest.mark.parametrize(
    "pattern",
    ["encoder.layer.2.attention.attention.{}.weight", "layers.2.attention.{}_proj.weight"],
    ids=["version 4", "version 5"],
)
def test_three_projections_are_one_in_timms_order(pattern: str) -> None:
    words = ("value", "query", "key") if "encoder" in pattern else ("v", "q", "k")
    found = translated(*(pattern.format(word) for word in words))
    assert found["blocks.2.attn.qkv.weight"].flatten().tolist() == [2.0, 3.0, 1.0]


def test_the_halves_of_a_gated_mlp_are_one_with_the_gate_in_front() -> None:
    found = translated("layers.0.mlp.up_proj.weight", "layers.0.mlp.gate_proj.weight", "layers.0.mlp.down_proj.weight")
    assert found["blocks.0.mlp.fc1.weight"].flatten().tolist() == [2.0, 1.0]
    assert found["blocks.0.mlp.fc2.weight"].item() == 3.0


def test_a_classifier_stands_beside_the_backbone() -> None:
    named = {
        f"net.vit.{ANCHOR}": torch.zeros(1),
        "net.classifier.bias": torch.ones(3),
        "classifier.bias": torch.ones(9),
    }
    assert HUGGING_FACE.prefixes(named) == ["net.vit."]
    assert len(HUGGING_FACE.translate(named, "net.vit.")["head.bias"]) == 3


def test_with_registers_the_class_token_holds_its_own_position() -> None:
    named = {
        "embeddings.cls_token": torch.full((1, 1, 2), 10.0),
        "embeddings.position_embeddings": torch.arange(6.0).view(1, 3, 2),
    }
    plain = HUGGING_FACE.translate(named, "")
    assert plain["pos_embed"].shape == (1, 3, 2) and plain["cls_token"].flatten().tolist() == [10.0, 10.0]
    found = HUGGING_FACE.translate({**named, "embeddings.register_tokens": torch.zeros(1, 4, 2)}, "")
    assert found["cls_token"].flatten().tolist() == [10.0, 11.0] and found["reg_token"].shape == (1, 4, 2)
    assert found["pos_embed"].tolist() == [[[2.0, 3.0], [4.0, 5.0]]]


def test_it_is_known_by_the_name_that_all_its_checkpoints_hold() -> None:
    assert HUGGING_FACE in SCHEMES and HUGGING_FACE.anchor == ANCHOR
    assert [scheme.title for scheme in SCHEMES if scheme.prefixes({ANCHOR: torch.zeros(1)})] == ["Hugging Face"]
