"""Links of timm's plain and windowed models answer what their modules do."""

from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.timmlinks import check_windows, plain_links, window_links


def run(links: dict[str, nn.Module], x: torch.Tensor) -> torch.Tensor:
    for link in links.values():
        x = link(x)
    return x


@torch.no_grad()
def test_a_plain_model() -> None:
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = VisionTransformer(**size, reg_tokens=2, qk_norm=True, init_values=0.5).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.norm(run(dict(plain_links(model, (3, 32, 32))), x)), model.forward_features(x))


@torch.no_grad()
def test_windows_that_are_padded_and_shifted() -> None:
    size = {"patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "window_size": 3}
    model = SwinTransformer(img_size=(32, 40), **size).eval()
    x, layers = torch.randn(2, 3, 32, 40), list(model.layers)
    links = window_links(model.patch_embed, layers, (3, 32, 40))
    torch.testing.assert_close(model.norm(run(dict(links), x)), model.forward_features(x))
    layers[1].blocks[0] = nn.Identity()
    with pytest.raises(UserError, match=r"^module 'layers.1.blocks.0' is a Identity"):
        check_windows([(f"layers.{n}", layer) for n, layer in enumerate(layers)])
