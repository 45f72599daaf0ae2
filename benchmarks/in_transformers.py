"""A shipped model as `transformers` has it: its own class, made from a config, with the weights that we ship.

Such a model answers what the shipped one does, so that an ONNX file of it, which looks quite different, can be measured
on the same test images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy import load_model
from fimaq_deploy.models.translations.hugging_face import HUGGING_FACE


class Logits(nn.Module):
    """What `optimum` exports of a classifier: pixels in, its logits out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, C, H, W) to (N, classes)."""
        logits: Tensor = self.model(pixel_values).logits
        return logits


def in_transformers(name: str) -> Logits:
    """One of the shipped ViTs and Swins."""
    ours = load_model(name)
    theirs = _swin(ours) if "swin" in name else _vit(ours)
    _fill(theirs, ours.state_dict())
    return Logits(theirs).eval()


def _vit(ours: Any) -> nn.Module:
    import transformers

    settings = dict[str, Any](
        image_size=ours.patch_embed.img_size[0],
        patch_size=ours.patch_embed.patch_size[0],
        num_channels=ours.patch_embed.proj.in_channels,
        hidden_size=ours.embed_dim,
        intermediate_size=ours.blocks[0].mlp.fc1.out_features,
        num_hidden_layers=len(ours.blocks),
        num_attention_heads=ours.blocks[0].attn.num_heads,
        layer_norm_eps=ours.norm.eps,
        num_labels=ours.num_classes,
    )
    made: nn.Module = transformers.ViTForImageClassification(transformers.ViTConfig(**settings))
    return made


def _swin(ours: Any) -> nn.Module:
    import transformers

    first = [stage.blocks[0] for stage in ours.layers]
    settings = dict[str, Any](
        image_size=ours.patch_embed.img_size[0],
        patch_size=ours.patch_embed.patch_size[0],
        num_channels=ours.patch_embed.proj.in_channels,
        embed_dim=ours.embed_dim,
        depths=[len(stage.blocks) for stage in ours.layers],
        num_heads=[block.attn.num_heads for block in first],
        window_size=first[0].window_size[0],
        layer_norm_eps=ours.norm.eps,
        num_labels=ours.num_classes,
    )
    made: nn.Module = transformers.SwinForImageClassification(transformers.SwinConfig(**settings))
    return made


@torch.no_grad()
def _fill(theirs: nn.Module, state: dict[str, Tensor]) -> None:
    """Weights under the other package's names: the places of its numbers are translated to ours, and filled by them."""
    places, count = {}, 0
    for name, tensor in theirs.state_dict().items():
        places[name] = torch.arange(count, count + tensor.numel()).view(tensor.shape)
        count += tensor.numel()
    numbers = torch.zeros(count)
    (prefix,) = HUGGING_FACE.prefixes(places)
    for name, place in HUGGING_FACE.translate(places, prefix).items():
        numbers[place] = state[name].float().view(place.shape)
    for name, tensor in theirs.state_dict().items():
        tensor.copy_(numbers[places[name]])
