"""Tiny timm models with random weights that matter, and recipes that run in a moment."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.recipe import Recipe


@torch.no_grad()
def _stir(model: nn.Module, seed: int) -> Any:
    """Weights of unit gain, random biases and norms: timm's own initialisation hides the blocks behind the residual."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise / math.sqrt(parameter[0].numel()))
        else:
            parameter.add_(noise, alpha=0.1)
    return model.eval()


def _seeded(make: Callable[[], nn.Module], seed: int) -> Any:
    """timm draws some biases while it constructs: the same ones in whatever order the tests run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _stir(make(), seed)


def _vit(kind: type[VisionTransformer] = VisionTransformer, *, seed: int = 0, **changes: Any) -> VisionTransformer:
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return _seeded(lambda: kind(**{**size, "num_classes": 5, "mlp_ratio": 2, **changes}), seed)


def _swin(*, seed: int = 0, **changes: Any) -> SwinTransformer:
    size = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2)}
    sizes = {**size, "window_size": 4, "num_classes": 5, "mlp_ratio": 2, **changes}
    return _seeded(lambda: SwinTransformer(**sizes), seed)


@pytest.fixture(scope="session")
def tiny_vit() -> Callable[..., VisionTransformer]:
    """A ViT of 2 blocks, 32 channels and 5 tokens for images (3, 16, 16); keywords go to timm."""
    return _vit


@pytest.fixture(scope="session")
def tiny_deit() -> Callable[..., VisionTransformer]:
    """The same with a distillation token."""
    return lambda **changes: _vit(VisionTransformerDistilled, **changes)


@pytest.fixture(scope="session")
def tiny_swin() -> Callable[..., SwinTransformer]:
    """A Swin of 2 + 2 blocks, 16 channels and windows of 4 for images (3, 32, 32); keywords go to timm."""
    return _swin


@pytest.fixture(scope="session")
def random_images() -> Callable[..., Tensor]:
    """`random_images(count, size)`: normal noise (count, 3, size, size)."""

    def make(count: int, size: int = 16, seed: int = 0) -> Tensor:
        return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture(scope="session")
def quick_recipe() -> Callable[..., Recipe]:
    """4-bit weights and activations, 16 images, a few iterations; keywords are changes as in `Recipe.replace`."""
    # Whatever the tests rely on is said here, so that new defaults do not change them.
    size = {"images": 16, "batch_size": 8, "iterations": 8, "rank": 2, "patience": 0}
    method = {"loss": "mse", "rounding": "adaround", "qdrop": 0.5, "rounding_weight": 0.01}
    rates = {"weight_lr": 1e-3, "scale_lr": 1e-3, "weight_scale_lr": 0, "other_lr": 0}
    base = Recipe().replace(
        weights={"bits": 4},
        activations={"bits": 4},
        patch_embed={"quantize": "always"},
        head={"quantize": "always"},
        rewrites={"norm": False, "heads": False, "rotation": False},
        scale_search={"candidates": 16},
        reconstruction={**size, **method, **rates},
        tuning={"iterations": 0, "weight_lr": 0.01, "scale_lr": 1e-3, "other_lr": 3e-4},
    )
    return lambda **changes: base.replace(**changes)
