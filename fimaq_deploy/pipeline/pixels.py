"""The files with their preprocessing inside, where a build is asked for them, checked beside the one without.

`model.pixels.onnx` takes pixels that are resized and cropped, `model.images.onnx` those of any image, in ONNX Runtime
on a CPU.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fimaq_deploy.contract import COLOURS, Contract, Resizing
from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.engines.runtimes import REFERENCE, find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.pixels import PIXELS, embed_preprocessing, resizing_model
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.preprocessing import Preparation
from fimaq_deploy.runtime.replay import Array, draw_picture

PIXELS_ONNX = "model.pixels.onnx"
IMAGES_ONNX = "model.images.onnx"
_MOST_LEVELS, _LARGEST_SHARE = 2, 0.5  # of 8 bits, and of the pixels that differ


def write_pixels(onnx: Path) -> str:
    """Write it beside the file that takes prepared images. Returns a note for the report.

    Raises:
        UserError: the model reads no images of 1 or 3 channels, or the two files do not compute the same.
    """
    file = embed_preprocessing(onnx, onnx.with_name(PIXELS_ONNX))
    plain, inside = contract_in(onnx), contract_in(file)
    assert plain is not None and inside is not None
    runtime = find_runtime(REFERENCE)
    outside = runtime.load(onnx).outputs(_prepared(plain))
    within = runtime.load(file).outputs(_prepared(inside))
    largest = max(float(np.abs(within[name] - outside[name]).max()) for name in outside)
    if largest:
        raise UserError(f"{PIXELS_ONNX} and {onnx.name} differ by {largest:.3g} on drawn pictures: leave it out")
    return f"{PIXELS_ONNX} takes pixels; its outputs for 4 drawn pictures are those of {onnx.name}, in every bit"


def write_images(onnx: Path) -> str:
    """Write the file that resizes and crops as well. Returns a note for the report, also where that cannot be.

    Raises:
        UserError: the model reads no images of 1 or 3 channels.
    """
    plain, path = contract_in(onnx), onnx.with_name(IMAGES_ONNX)
    assert plain is not None
    pictures = _pictures(plain)
    try:
        measured = _resized(plain, pictures)
        embed_preprocessing(onnx, path, resize=True, measured=measured)
    except UserError as error:
        return f"there is no {IMAGES_ONNX}: {error}"
    runtime = find_runtime(REFERENCE)
    outside, inside = runtime.load(onnx).outputs(_prepared(plain)), runtime.load(path).outputs(np.stack(pictures))
    scale = max(float(np.abs(one).max()) for one in outside.values())
    largest = max(float(np.abs(inside[name] - outside[name]).max()) for name in outside) / max(scale, 1e-12)
    share = 100 * (measured.share or 0)
    return (
        f"{IMAGES_ONNX} takes images of any size, for {REFERENCE}: of 4 drawn pictures {share:.3g} % of the pixels "
        f"differ from the exact ones, by at most {measured.levels} of 255, and its outputs by at most "
        f"{100 * largest:.2g} % of the largest"
    )


def _resized(contract: Contract, pictures: list[Array]) -> Resizing:
    """How far what the file makes of pictures is from the exact pixels.

    Raises:
        UserError: ONNX cannot say it, or it is further than rounding.
    """
    with TemporaryDirectory() as folder:
        session = open_session(resizing_model(contract, Path(folder) / "resizing.onnx"))
        own = [session.run(None, {PIXELS: one[None]})[0][0] for one in pictures]
    exact = [Preparation(replace(contract, pixels=True))(one) for one in pictures]
    away = np.abs(np.stack(own).astype(int) - np.stack(exact).astype(int))
    found = Resizing(int(away.max()), float((away > 0).mean()))
    if found.levels > _MOST_LEVELS or found.share > _LARGEST_SHARE:  # type: ignore[operator]
        raise UserError(
            f"its pixels differ from the exact ones by up to {found.levels}, {100 * away.mean():.3g} % of them"
        )
    return found


def _prepared(contract: Contract) -> Array:
    """The four pictures as a file reads them."""
    return np.stack([Preparation(contract)(one) for one in _pictures(contract)])


def _pictures(contract: Contract) -> list[Array]:
    """A drawn picture, mirrored, its negative, and black: uint8 (H, W, C)."""
    if contract.shape[0] not in COLOURS:
        raise UserError(f"a model of {contract.shape[0]} channels reads no pictures: leave --embed-preprocessing out")
    picture = draw_picture(*contract.shape)
    picture = picture if picture.ndim == 3 else picture[..., None]
    return [picture, np.ascontiguousarray(picture[:, ::-1]), 255 - picture, np.zeros_like(picture)]
