"""torchvision's VisionTransformer: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

SIZE = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 64, "mlp_dim": 128}


@pytest.fixture
def vit(lively: Any) -> Any:
    return lambda **changes: lively(lambda: VisionTransformer(**{**SIZE, "num_classes": 20, **changes}))


@pytest.mark.parametrize("changes", [{}, {"representation_size": 48}])
def test_the_chain_answers_what_the_model_does(changes: Any, vit: Any, equals_its_chain: Any) -> None:
    assert equals_its_chain(vit(**changes)).num_classes == 20


def test_a_model_without_its_classifier_answers_features(vit: Any, equals_its_chain: Any) -> None:
    model = vit()
    model.heads = nn.Identity()
    assert equals_its_chain(model).num_classes == 0


def test_the_whole_road(vit: Any, whole_road: Any, tmp_path: Path) -> None:
    quantized, cosine = whole_road(vit(), tmp_path)
    assert cosine > 0.995 and not quantized.left_alone


def test_another_attention_is_refused_by_name(vit: Any) -> None:
    model = vit()
    model.encoder.layers[1].self_attention = nn.Identity()
    with pytest.raises(UserError, match=r"^module 'encoder.layers.encoder_layer_1.self_attention' is a Identity"):
        family_of(model).check(model)


def test_images_of_another_size_are_refused(vit: Any) -> None:
    model = vit()
    with pytest.raises(UserError, match=r"^the model takes no images of \(3, 40, 40\)"):
        family_of(model).as_chain(model, (3, 40, 40))
    assert torch.isfinite(model(torch.randn(1, 3, 32, 32))).all()
