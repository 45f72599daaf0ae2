"""Every operator of torch.ops.fimaq in ONNX: the same numbers, and a Clip only where the container needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.versions import quantizes_float16_exactly
from numpy.typing import NDArray
from onnxscript import evaluator

from fimaq_deploy.export.translate import TRANSLATIONS

FIMAQ = torch.ops.fimaq


class Recorder(evaluator.ORTEvaluator):
    """Runs every ONNX operator at once and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, list[Any]]] = []

    def _eval(self, schema: Any, inputs: Sequence[Any], attributes: Mapping[str, Any], closure: Any) -> Any:
        self.ran.append((schema.name, list(inputs)))
        return super()._eval(schema, inputs, attributes, closure)


def both(operator: Any, *arguments: Any) -> tuple[NDArray[Any], NDArray[Any], Recorder]:
    """What ONNX and what torch computes of arrays and numbers."""
    recorder = Recorder()
    with evaluator.default_as(recorder):
        found = TRANSLATIONS[operator](*arguments).value
    tensors = (torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in arguments)
    return found, operator(*tensors).numpy(), recorder


@pytest.mark.parametrize(
    ("zero", "low", "high", "clips", "container"),
    [
        (0, -128, 127, False, np.int8),
        (0, -8, 7, True, np.int8),
        (0, 0, 127, True, np.int8),
        (0, 0, 15, True, np.int8),
        (131, 0, 255, False, np.uint8),
        (0, 0, 255, False, np.uint8),
        (3, 0, 15, True, np.uint8),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, pytest.param(np.float16, marks=quantizes_float16_exactly)])
def test_quantizing_gives_torchs_numbers_in_the_smallest_container(
    kind: type, zero: int, low: int, high: int, clips: bool, container: type
) -> None:
    """Half steps round to even and what lies outside saturates; scale 1/4 is exact in both types."""
    x = (np.arange(-1200, 1201, dtype=np.float64) / 8).astype(kind)
    found, expected, recorder = both(FIMAQ.quantize_dequantize.default, x, np.array(0.25, kind), zero, low, high)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype == kind
    assert (found.min(), found.max()) == ((low - zero) / 4, (high - zero) / 4)
    ran = [name for name, _ in recorder.ran]
    assert ("Clip" in ran) is clips and ran[-2:] == ["QuantizeLinear", "DequantizeLinear"]
    assert np.asarray(recorder.ran[-1][1][2].value).dtype == container


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_weights_have_a_scale_along_an_axis(axis: int, kind: type) -> None:
    q = np.arange(-8, 4, dtype=np.int8).reshape(3, 4)
    scale = (np.arange(q.shape[axis]) + 0.5).astype(kind)
    found, expected, recorder = both(FIMAQ.dequantize_weight.default, q, scale, axis)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == kind and [name for name, _ in recorder.ran] == ["DequantizeLinear"]


@pytest.mark.parametrize("block", [2, 4])
def test_weights_have_a_scale_for_each_block_of_rows(block: int) -> None:
    q = np.arange(-8, 4, dtype=np.int8).reshape(4, 3)
    scale = np.arange(1, 1 + 12 // block, dtype=np.float32).reshape(4 // block, 3)
    found, expected, _ = both(FIMAQ.dequantize_weight_blocked.default, q, scale, block)
    np.testing.assert_array_equal(found, expected)


def test_every_operator_of_a_frozen_model_is_translated() -> None:
    names = {operator.name() for operator in TRANSLATIONS}
    registered = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("fimaq::")}
    assert names == registered
