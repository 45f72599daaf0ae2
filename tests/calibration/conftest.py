from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel


@pytest.fixture(scope="session")
def quantized_vit(
    tiny_vit: Callable[..., Any], random_images: Callable[..., Any], quick_recipe: Callable[..., Any]
) -> QuantizedModel:
    """`tiny_vit()` on 4-bit grids of ONNX Runtime, with seed 7."""
    return quantize(tiny_vit(), random_images(16), quick_recipe(reconstruction={"iterations": 2}), seed=7)
