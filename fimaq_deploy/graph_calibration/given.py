"""The file as it was given, run by ONNX Runtime: what everything else of a build is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.graph_calibration.intake import Network

Array = NDArray[Any]


class Given:
    """Calling it maps float32 images (N, C, H, W) to every output by name, floats as float32.

    A file that takes one batch size alone gets the images in such batches, the last one filled up.
    """

    def __init__(self, network: Network) -> None:
        self._session = open_session(network.path)
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]
        self._dtype, self._batch = network.dtype.numpy(), network.batch

    def __call__(self, images: Array) -> dict[str, Array]:
        size = self._batch or len(images)
        found = [self._run(images[start : start + size], size) for start in range(0, len(images), size)]
        return {name: np.concatenate([each[name] for each in found]) for name in self._names}

    def _run(self, images: Array, size: int) -> dict[str, Array]:
        short = size - len(images)
        whole = np.concatenate([images, np.repeat(images[-1:], short, 0)]) if short else images
        results = self._session.run(self._names, {self._input: np.ascontiguousarray(whole, self._dtype)})
        return {name: _floats(array)[: len(images)] for name, array in zip(self._names, results, strict=True)}


def _floats(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array
