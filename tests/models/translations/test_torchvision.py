"""torchvision's models under timm's names compute what torchvision does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models import SwinTransformer, VisionTransformer
from torchvision.models import VisionTransformer as TorchvisionViT
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from fimaq_deploy.models.weights import find_weights

Stirred = Callable[[Any], Any]
Difference = Callable[[torch.Tensor, torch.Tensor], float]


def vit() -> tuple[Any, Any]:
    theirs = TorchvisionViT(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    ours = VisionTransformer(img_size=32, patch_size=16, depth=2, num_heads=2, embed_dim=32, mlp_ratio=2, num_classes=5)
    return theirs, ours.eval()


def swin() -> tuple[Any, Any]:
    sizes = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "num_classes": 5}
    theirs = TorchvisionSwin(patch_size=[4, 4], window_size=[4, 4], **sizes)
    return theirs, SwinTransformer(img_size=32, patch_size=4, window_size=4, **sizes).eval()


@pytest.mark.parametrize("make", [vit, swin])
@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.model."])
def test_the_same_answers(make: Any, prefix: str, with_weights: Stirred, relative_difference: Difference) -> None:
    theirs, ours = make()
    with_weights(theirs)
    taken = find_weights({prefix + name: one for name, one in theirs.state_dict().items()}, ours.state_dict(), "file")
    ours.load_state_dict(taken.found.state)
    images = torch.randn(2, 3, 32, 32)
    assert relative_difference(ours(images), theirs(images)) < 1e-5
    assert (taken.found.scheme, taken.found.label) == ("torchvision", prefix.rstrip("."))


def test_names_of_old_versions(with_weights: Stirred) -> None:
    theirs, ours = vit()
    old = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): one
        for name, one in with_weights(theirs).state_dict().items()
    }
    assert find_weights(old, ours.state_dict(), "file").found.state.keys() == ours.state_dict().keys()
