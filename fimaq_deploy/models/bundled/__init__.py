"""Small models that ship with the package: real timm classes, trained by `examples/train_bundled.py`.

`vit_digits` and `swin_digits` read handwritten digits and are quick to try things on; `vit_shapes` and `swin_shapes`
solve the harder procedural task of `fimaq_deploy.data.shapes`, where low bits hurt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

HERE = Path(__file__).parent

Task = Literal["digits", "shapes"]

DIGITS = tuple(map(str, range(10)))
SILHOUETTES = ("disc", "square", "triangle", "star", "cross", "ring", "crescent", "ellipse")
FILLS = ("plain", "striped", "spotted")
SHAPES = tuple(f"{fill} {silhouette}" for silhouette in SILHOUETTES for fill in FILLS)


@dataclass(frozen=True)
class Bundled:
    """A shipped model: how to construct it, its task and where its weights lie."""

    name: str
    task: Task
    create: Callable[[], nn.Module]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return DIGITS if self.task == "digits" else SHAPES

    @property
    def weights(self) -> Path:
        return HERE / f"{self.name}.safetensors"


def _vit(**sizes: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**sizes)


def _swin(**sizes: Any) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(**sizes)


def vit_digits() -> nn.Module:
    """16×16 grey images, 16 tokens and a class token, 4 blocks of width 64."""
    return _vit(img_size=16, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=4)


def swin_digits() -> nn.Module:
    """16×16 grey images, windows of 4×4, two stages of 2 blocks, width 32 to 64."""
    return _swin(
        img_size=16,
        patch_size=2,
        in_chans=1,
        num_classes=10,
        embed_dim=32,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
    )


def vit_shapes() -> nn.Module:
    """32×32 colour images, 64 tokens and a class token, 4 blocks of width 96."""
    return _vit(img_size=32, patch_size=4, num_classes=24, embed_dim=96, depth=4, num_heads=3)


def swin_shapes() -> nn.Module:
    """32×32 colour images, windows of 4×4, three stages of 2 blocks, width 32 to 128."""
    return _swin(
        img_size=32, patch_size=2, num_classes=24, embed_dim=32, depths=(2, 2, 2), num_heads=(2, 4, 8), window_size=4
    )


BUNDLED: dict[str, Bundled] = {
    "vit_digits": Bundled("vit_digits", "digits", vit_digits),
    "swin_digits": Bundled("swin_digits", "digits", swin_digits),
    "vit_shapes": Bundled("vit_shapes", "shapes", vit_shapes),
    "swin_shapes": Bundled("swin_shapes", "shapes", swin_shapes),
}
