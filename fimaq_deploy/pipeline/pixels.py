"""The file with its preprocessing inside, where a build is asked for it, checked beside the one without."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fimaq_deploy.contract import COLOURS, Contract
from fimaq_deploy.engines.runtimes import REFERENCE, find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.pixels import embed_preprocessing
from fimaq_deploy.runtime.onnx_metadata import contract_in
from fimaq_deploy.runtime.preprocessing import Preparation
from fimaq_deploy.runtime.replay import Array, draw_picture

PIXELS_ONNX = "model.pixels.onnx"


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


def _prepared(contract: Contract) -> Array:
    """Four pictures as a file reads them: drawn, mirrored, its negative, and black."""
    if contract.shape[0] not in COLOURS:
        raise UserError(f"a model of {contract.shape[0]} channels reads no pictures: leave --embed-preprocessing out")
    picture = draw_picture(*contract.shape)
    prepare = Preparation(contract)
    return np.stack([prepare(one) for one in (picture, picture[:, ::-1], 255 - picture, np.zeros_like(picture))])
