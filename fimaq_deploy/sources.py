"""Which images a build uses when: the user's, those that ship with a model, or generated ones for random weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from fimaq_deploy.bundled import BUNDLED
from fimaq_deploy.data import shapes
from fimaq_deploy.data.images import ImageSource, bundled_images, folder_images, image_source
from fimaq_deploy.errors import UserError
from fimaq_deploy.models import ModelInfo
from fimaq_deploy.request import Request

GENERATED_EVALUATION_IMAGES = 64


def calibration_source(request: Request, info: ModelInfo, count: int) -> ImageSource:
    """Up to `count` images to learn from.

    Raises:
        UserError: a trained model without images, or a bad folder.
    """
    if request.images is not None:
        return folder_images(request.images, info, limit=count, seed=request.seed)
    if request.model in BUNDLED:
        return bundled_images(BUNDLED[request.model].task, "calibration", count)
    if request.weights == "random":
        return generated_images(info, "calibration", count)
    raise UserError(f"model '{request.model}' brings no images: give a folder of them with --images DIR")


def evaluation_source(request: Request, info: ModelInfo, calibration: ImageSource) -> ImageSource:
    """Images to compare the variants on; without a folder of their own, the calibration images, which have no labels.

    Raises:
        UserError: a bad folder.
    """
    if request.eval_images is not None:
        return folder_images(request.eval_images, info, labelled=True)
    if request.model in BUNDLED:
        return bundled_images(BUNDLED[request.model].task, "test")
    if request.images is None:
        return generated_images(info, "test", GENERATED_EVALUATION_IMAGES)
    return calibration


def generated_images(info: ModelInfo, split: shapes.Split, count: int) -> ImageSource:
    """Procedural images without labels, in the model's shape and normalisation."""
    channels, height, width = info.input_shape
    pixels = torch.from_numpy(shapes.generate(split, count)[0]).float() / 255
    if channels != 3:
        pixels = pixels.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    resized = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    return replace(image_source((resized - mean) / std), description="generated shapes")
