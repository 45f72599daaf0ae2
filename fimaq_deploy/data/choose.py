"""Which images a model is calibrated and evaluated on: the user's, those that ship with it, or generated ones where its
weights are random.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import torch
from torch.nn import functional as F

from fimaq_deploy.data import shapes
from fimaq_deploy.data.batches import merge, rows_of
from fimaq_deploy.data.bundled import shipped_images
from fimaq_deploy.data.class_maps import ClassMap
from fimaq_deploy.data.coco import coco_images
from fimaq_deploy.data.intake import Images, as_source
from fimaq_deploy.data.label_maps import mapped_images
from fimaq_deploy.data.memory import Arrays, Batches
from fimaq_deploy.data.pixels import Pixels
from fimaq_deploy.data.source import BATCH_SIZE, Batch, ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.bundled import SHIPPED
from fimaq_deploy.models.describe import ModelInfo

GENERATED_EVALUATION_IMAGES = 64


def calibration_source(
    name: str, info: ModelInfo, count: int, *, images: Images | None, weights: str, seed: int
) -> ImageSource:
    """Up to `count` images to learn from.

    name, weights: of the model, as `load_model` takes them. images: the user's, as `as_source` takes them.

    Raises:
        UserError: a trained model without images, or images that are refused.
    """
    if images is not None:
        return kept(as_source(images, info, keep_labels=False, limit=count, seed=seed), count)
    if name in SHIPPED:
        return shipped_images(name, "calibration", count)
    if weights == "random":
        return generated_images(info, "calibration", count)
    raise UserError(f"model '{name}' brings no images: give some with --images, such as a folder of them")


def evaluation_source(
    name: str,
    info: ModelInfo,
    calibration: ImageSource,
    *,
    images: Images | None,
    own_calibration: bool,
    class_map: ClassMap | str | Path | None = None,
    coco: str | Path | None = None,
    maps: str | Path | None = None,
) -> ImageSource:
    """Images to compare the variants on; without a folder of their own, the calibration images, which have no labels.

    images: the user's, as `as_source` takes them. own_calibration: whether the user brought the calibration images.
    class_map: the classes of their sub-folders, or a file of them.
    coco, maps: what the images of a folder show: a file of COCO annotations, or a folder of label maps.

    Raises:
        UserError: images that are refused, or annotations that are not theirs.
    """
    if coco is not None or maps is not None:
        return _annotated(images, info, coco, maps)
    if images is not None:
        return kept(as_source(images, info, class_map=class_map))
    if name in SHIPPED:
        return shipped_images(name, "test")
    if not own_calibration:
        return generated_images(info, "test", GENERATED_EVALUATION_IMAGES)
    return calibration


def _annotated(images: Images | None, info: ModelInfo, coco: str | Path | None, maps: str | Path | None) -> ImageSource:
    option = "--eval-maps" if coco is None else "--eval-coco"
    if coco is not None and maps is not None:
        raise UserError("--eval-coco and --eval-maps: give the one that the model's answers are about")
    if not isinstance(images, (str, PathLike)):
        raise UserError(f"{option} needs the folder of its images: name it with --eval-images")
    folder = Path(images)
    return mapped_images(folder, maps, info) if maps is not None else coco_images(folder, coco or "", info)


def kept(source: ImageSource, count: int | None = None) -> ImageSource:
    """The source, in memory where it can be read but once, as a generator: a build reads images several times.

    count: images that are enough.
    """
    if not (isinstance(source, Batches) and isinstance(source.items, Iterator)):
        return source
    found: list[Batch] = []
    for batch in source.batches(min(BATCH_SIZE, count or BATCH_SIZE)):
        found.append(batch)
        if count is not None and sum(len(each.images) for each in found) >= count:
            break
    whole = rows_of(merge(found), slice(count))
    return Arrays(whole.images, whole.labels, Pixels(), source.description)


def example_images(name: str, info: ModelInfo, images: Images | None, count: int) -> ImageSource:
    """A few images to look at a model with: the user's, else those that ship with it, else generated ones.

    Raises:
        UserError: fewer than one, or images that are refused.
    """
    if count < 1:
        raise UserError(f"{count} images: expected at least 1")
    if images is not None:
        return as_source(images, info, keep_labels=False, limit=count)
    if name in SHIPPED:
        return shipped_images(name, "test", count)
    return generated_images(info, "test", count)


def generated_images(info: ModelInfo, split: shapes.Split, count: int) -> ImageSource:
    """Procedural images without labels, in the model's shape and normalisation."""
    channels, height, width = info.input_shape
    pixels = torch.from_numpy(shapes.generate(split, count)[0]).float() / 255
    if channels != 3:
        pixels = pixels.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    resized = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    return Arrays((resized - mean) / std, None, Pixels(), "generated shapes")
