"""Small models that ship with the package: real timm classes, trained by `examples/train_bundled.py`.

`vit_digits` and `swin_digits` read handwritten digits and are quick to try things on; `vit_shapes` and `swin_shapes`
solve the harder procedural task of `fimaq_deploy.data.shapes`, where low bits hurt. `maskrcnn_shapes`, `detr_shapes`
and `segmenter_shapes`, trained by `examples/train_scenes.py`, find the objects in the pictures of
`fimaq_deploy.data.scenes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

HERE = Path(__file__).parent

Task = Literal["digits", "shapes", "scenes", "maps"]

DIGITS = tuple(map(str, range(10)))
SILHOUETTES = ("disc", "square", "triangle", "star", "cross", "ring", "crescent", "ellipse")
FILLS = ("plain", "striped", "spotted")
SHAPES = tuple(f"{fill} {silhouette}" for silhouette in SILHOUETTES for fill in FILLS)

_CLASSES: dict[Task, tuple[str, ...]] = {
    "digits": DIGITS,
    "shapes": SHAPES,
    "scenes": SILHOUETTES,
    "maps": SILHOUETTES,
}


@dataclass(frozen=True)
class Bundled:
    """A shipped model: how to construct it, its task and where its weights lie.

    before: what its labels begin with, before the classes of the task.
    """

    name: str
    task: Task
    create: Callable[[], nn.Module]
    before: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits, or of the labels."""
        return (*self.before, *_CLASSES[self.task])

    @property
    def channels(self) -> int:
        """Of its images."""
        return 1 if self.task == "digits" else 3

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


def maskrcnn_shapes() -> nn.Module:
    """96×96 colour images, torchvision's Mask R-CNN on a timm Swin of `swin_shapes`' sizes."""
    from fimaq_deploy.models.bundled import scenes

    return scenes.maskrcnn_shapes()


def detr_shapes() -> nn.Module:
    """96×96 colour images, RT-DETR of transformers on its own Swin of `swin_shapes`' sizes."""
    from fimaq_deploy.models.bundled import scenes

    return scenes.detr_shapes()


def segmenter_shapes() -> nn.Module:
    """96×96 colour images, maps of three stages of a timm Swin of `swin_shapes`' sizes under a small decoder."""
    from fimaq_deploy.models.bundled import scenes

    return scenes.segmenter_shapes()


BUNDLED: dict[str, Bundled] = {
    "vit_digits": Bundled("vit_digits", "digits", vit_digits),
    "swin_digits": Bundled("swin_digits", "digits", swin_digits),
    "vit_shapes": Bundled("vit_shapes", "shapes", vit_shapes),
    "swin_shapes": Bundled("swin_shapes", "shapes", swin_shapes),
}
"""The classifiers: encoders themselves."""

INSIDE: dict[str, Bundled] = {
    "maskrcnn_shapes": Bundled("maskrcnn_shapes", "scenes", maskrcnn_shapes, ("background",)),
    "detr_shapes": Bundled("detr_shapes", "scenes", detr_shapes),
    "segmenter_shapes": Bundled("segmenter_shapes", "maps", segmenter_shapes, ("background",)),
}
"""Models with an encoder inside."""

SHIPPED: dict[str, Bundled] = {**BUNDLED, **INSIDE}
