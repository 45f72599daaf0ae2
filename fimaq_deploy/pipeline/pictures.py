"""A few evaluation images with what each way of running the model found in them, for the report to show."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fimaq_deploy.contract import COLOURS
from fimaq_deploy.data.objects import boxes_of, has_masks, labels_of, masks_fit, masks_of, scores_of
from fimaq_deploy.measure.outputs import Outputs
from fimaq_deploy.measure.tasks import Tasks
from fimaq_deploy.measure.tasks.detection import SURE
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.report import schema

SHOWN = 3
_SIDE = 256  # pixels of the longer side at most
_MOST_OBJECTS = 20

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Glance:
    """images: the first ones (N, C, H, W), as the model reads them. answers: of each row, by its id."""

    images: Tensor
    answers: Mapping[str, Outputs]


def glance(images: Tensor, seen: Mapping[str, Outputs], tasks: Tasks) -> Glance | None:
    """The first images of a batch and what was answered; None where the answers are nothing to be shown on them."""
    main = next(iter(tasks))
    if tasks[main].kind not in ("detection", "segmentation"):
        return None
    answers = {row: {main: outputs[main][:SHOWN].copy()} for row, outputs in seen.items()}
    return Glance(images[:SHOWN].clone(), answers)


def to_pictures(seen: Glance | None, tasks: Tasks, info: ModelInfo) -> list[schema.Picture]:
    """As a report keeps them: small, as JPEG; objects that a row is sure of, with masks, or the class of each pixel."""
    if seen is None or info.input_shape[0] not in COLOURS:
        return []
    main = next(iter(tasks))
    if tasks[main].kind == "detection":
        size = (seen.images.shape[2], seen.images.shape[3])
        sure = {row: [_sure(one) for one in outputs[main]] for row, outputs in seen.answers.items()}
        answers = {row: [_objects(one, info) for one in found] for row, found in sure.items()}
        masks = {row: [_masks(one, size) for one in found] for row, found in sure.items()}
        maps: dict[str, list[str | None]] = {row: [None] * len(found) for row, found in answers.items()}
    else:
        arrange = tasks[main].arrange
        maps = {row: [_map(one) for one in arrange(outputs[main])] for row, outputs in seen.answers.items()}
        answers = {row: [[] for _ in found] for row, found in maps.items()}
        masks = {row: [None] * len(found) for row, found in maps.items()}
    return [
        schema.Picture(
            image=_jpeg(_pixels(image, info)),
            width=image.shape[2],
            height=image.shape[1],
            answers=[
                schema.Answer(row=row, objects=found[number], classes=maps[row][number], masks=masks[row][number])
                for row, found in answers.items()
            ],
        )
        for number, image in enumerate(seen.images)
    ]


def _sure(found: Array) -> Array:
    """The objects of one image to be shown, the surest first."""
    scores, labels = np.nan_to_num(scores_of(found)), labels_of(found)
    order = [n for n in np.argsort(-scores, kind="stable") if labels[n] >= 0 and scores[n] >= SURE][:_MOST_OBJECTS]
    return found[order]


def _objects(found: Array, info: ModelInfo) -> list[schema.Object]:
    return [
        schema.Object(
            box=[round(float(edge), 1) for edge in boxes_of(one)],
            label=_name(int(labels_of(one)), info),
            score=round(float(scores_of(one)), 3),
        )
        for one in found
    ]


def _masks(found: Array, size: tuple[int, int]) -> str | None:
    """Which object each pixel is of, from 1, the surest where several are; None without masks of the image's size."""
    height, width = size
    if not has_masks(found) or not masks_fit(found, height, width):
        return None
    whose = np.zeros(size, np.uint8)
    for number in range(len(found), 0, -1):
        whose[masks_of(found[number - 1], height, width)] = number
    return _encoded(_small(Image.fromarray(whose), Image.Resampling.NEAREST), "PNG")


def _name(label: int, info: ModelInfo) -> str:
    return info.class_names[label] if label < len(info.class_names) else f"label {label}"


def _map(scores: Array) -> str:
    """The class of each pixel (H, W), from scores (H, W, classes), as PNG of one channel."""
    classes = np.minimum(scores.argmax(-1), 255).astype(np.uint8)
    return _encoded(_small(Image.fromarray(classes), Image.Resampling.NEAREST), "PNG")


def _pixels(image: Tensor, info: ModelInfo) -> Array:
    """uint8 (H, W, C)"""
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (info.mean, info.std))
    shown = ((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return shown.permute(1, 2, 0).numpy()


def _jpeg(pixels: Array) -> str:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    return _encoded(_small(image, Image.Resampling.LANCZOS), "JPEG", quality=85)


def _small(image: Image.Image, how: Image.Resampling) -> Image.Image:
    share = _SIDE / max(image.size)
    if share >= 1:
        return image
    return image.resize((max(1, round(image.width * share)), max(1, round(image.height * share))), how)


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return base64.b64encode(stream.getvalue()).decode()
