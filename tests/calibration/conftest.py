"""The tests of a second device run in a process of their own: they register it for good, and torch counts devices at
the first backward pass of a process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel

SUITE = "test_second_device.py"

collect_ignore = [] if any(SUITE in argument for argument in sys.argv) else [SUITE]


@pytest.fixture(scope="session")
def quantized_vit(
    tiny_vit: Callable[..., Any], random_images: Callable[..., Any], quick_recipe: Callable[..., Any]
) -> QuantizedModel:
    """`tiny_vit()` on 4-bit grids of ONNX Runtime, with seed 7."""
    return quantize(tiny_vit(), random_images(16), quick_recipe(reconstruction={"iterations": 2}), seed=7)
