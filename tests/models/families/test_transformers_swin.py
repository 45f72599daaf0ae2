"""Hugging Face's Swin and SwinV2: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")
SIZE = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 32,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": 4,
    "num_labels": 20,
}


def swin(kind: str = "SwinModel", pool: bool = True, **changes: Any) -> Any:
    config = (hf.Swinv2Config if "v2" in kind else hf.SwinConfig)(**{**SIZE, **changes})
    return getattr(hf, kind)(config) if pool else getattr(hf, kind)(config, add_pooling_layer=False)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("SwinForImageClassification", {}),
        ("SwinModel", {"pool": False, "use_absolute_embeddings": True}),
        ("SwinModel", {"window_size": 3, "image_size": (36, 52)}),  # windows that are padded, odd maps that are merged
        ("Swinv2ForImageClassification", {"window_size": 3}),
        ("Swinv2Model", {"pool": False}),
        ("Swinv2Model", {"window_size": 8, "pretrained_window_sizes": [4, 4]}),
    ],
)
def test_the_chain_answers_what_the_model_does(kind: str, changes: Any, lively: Any, equals_its_chain: Any) -> None:
    equals_its_chain(lively(lambda: swin(kind, **changes)))


def test_the_whole_road(lively: Any, whole_road: Any, tmp_path: Path) -> None:
    quantized, cosine = whole_road(lively(lambda: swin("SwinForImageClassification")), tmp_path)
    assert cosine > 0.99 and not quantized.left_alone


def test_windows_that_are_larger_than_the_map_are_refused(lively: Any) -> None:
    model = lively(lambda: swin(window_size=8))
    with pytest.raises(UserError, match=r"^a map of 4×4 tokens is smaller than the model's windows"):
        family_of(model).as_chain(model)


def test_parts_of_patches_are_refused(lively: Any) -> None:
    model = lively(swin)
    with pytest.raises(UserError, match=r"^the model takes no images of \(3, 30, 32\): expected 3 channels and whole"):
        family_of(model).as_chain(model, (3, 30, 32))
