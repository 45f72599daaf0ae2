"""Hugging Face's Data2Vec-Vision: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
IMAGES = {"image_size": 32, "patch_size": 8, "num_labels": 20}
BOTH = {"use_shared_relative_position_bias": True, "use_relative_position_bias": True}


def data2vec(kind: str = "Data2VecVisionModel", pool: bool = True, **changes: Any) -> Any:
    config = hf.Data2VecVisionConfig(**{**SIZE, **IMAGES, **changes})
    return getattr(hf, kind)(config, add_pooling_layer=pool) if kind.endswith("Model") else getattr(hf, kind)(config)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Data2VecVisionModel", {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}),
        ("Data2VecVisionModel", {**BOTH, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0}),
        ("Data2VecVisionModel", {"use_mean_pooling": False}),
        ("Data2VecVisionModel", {"pool": False}),
        ("Data2VecVisionForImageClassification", {"use_shared_relative_position_bias": True}),
    ],
)
def test_the_chain_answers_what_the_model_does(kind: str, changes: Any, lively: Any, equals_its_chain: Any) -> None:
    equals_its_chain(lively(lambda: data2vec(kind, **changes)))


@pytest.mark.slow
def test_the_whole_road(lively: Any, whole_road: Any, tmp_path: Path) -> None:
    _, cosine = whole_road(lively(lambda: data2vec("Data2VecVisionForImageClassification", **BOTH)), tmp_path)
    assert cosine > 0.99


def test_biases_are_resampled_as_the_model_does(lively: Any) -> None:
    model, images = lively(lambda: data2vec(**BOTH)), torch.randn(2, 3, 48, 48)
    chain = family_of(model).as_chain(model, (3, 48, 48))
    torch.testing.assert_close(chain(images), model(images).pooler_output, rtol=1e-4, atol=1e-4)


def test_a_block_of_another_kind_is_refused_by_name(lively: Any) -> None:
    model = lively(data2vec)
    model.encoder.layer[1] = torch.nn.Identity()
    with pytest.raises(UserError, match=r"module 'encoder.layer.1' is a Identity"):
        family_of(model).check(model)
