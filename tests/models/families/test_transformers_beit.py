"""Hugging Face's BEiT: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
IMAGES = {"image_size": 32, "patch_size": 8, "num_labels": 20}
BOTH = {"use_shared_relative_position_bias": True, "use_relative_position_bias": True}


def beit(kind: str = "BeitModel", pool: bool = True, **changes: Any) -> Any:
    config = hf.BeitConfig(**{**SIZE, **IMAGES, **changes})
    return getattr(hf, kind)(config) if pool else getattr(hf, kind)(config, add_pooling_layer=False)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("BeitModel", {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}),
        ("BeitModel", {**BOTH, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0}),
        ("BeitModel", {"use_mean_pooling": False}),
        ("BeitModel", {"pool": False}),
        ("BeitForImageClassification", {"use_shared_relative_position_bias": True}),
    ],
)
def test_the_chain_answers_what_the_model_does(kind: str, changes: Any, lively: Any, equals_its_chain: Any) -> None:
    equals_its_chain(lively(lambda: beit(kind, **changes)))


@pytest.mark.slow
def test_the_whole_road(lively: Any, whole_road: Any, tmp_path: Path) -> None:
    _, cosine = whole_road(lively(lambda: beit("BeitForImageClassification", **BOTH)), tmp_path)
    assert cosine > 0.99


def test_biases_are_resampled_as_the_model_does(lively: Any) -> None:
    model, images = lively(lambda: beit(**BOTH)), torch.randn(2, 3, 48, 48)
    chain = family_of(model).as_chain(model, (3, 48, 48))
    torch.testing.assert_close(chain(images), model(images).pooler_output, rtol=1e-4, atol=1e-4)
