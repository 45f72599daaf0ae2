"""What this machine does in a second, measured: square matrix products through ONNX Runtime, and copies.

The best of several runs counts, because a floor is meant; a machine that is busy all the time is measured too slow.
Takes about half a second.

Not covered: GPUs. Their rates would be measured through the same graphs with another provider; nothing here has been
run on one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from fimaq_deploy.measure.roofline import FLOAT32, INT8

_SIDE = 512
_SECONDS = 0.1
_LARGEST_COPY_BYTES = 2**26
_PIECE_BYTES = 2**20


def measure_operations(threads: int | None = None) -> dict[str, float]:
    """Operations per second by type. threads: as the engines get them; None is ONNX Runtime's choice."""
    return {FLOAT32: _product_rate("MatMul", threads), INT8: _product_rate("MatMulInteger", threads)}


def _product_rate(operator: str, threads: int | None) -> float:
    """Operations per second of one square product with stored weights."""
    run = _product(operator, threads)
    return 2 * _SIDE**3 / _best_seconds(run)


def _product(operator: str, threads: int | None) -> Callable[[], Any]:
    import onnx
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    left, right, result = (np.float32,) * 3 if operator == "MatMul" else (np.uint8, np.int8, np.int32)
    x, weights = (random.integers(0, 100, (_SIDE, _SIDE)).astype(kind) for kind in (left, right))
    kinds = {"x": x.dtype, "y": np.dtype(result)}
    x_info, y_info = (
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), [_SIDE, _SIDE])
        for name, kind in kinds.items()
    )
    node = helper.make_node(operator, ["x", "w"], ["y"])
    graph = helper.make_graph([node], operator, [x_info], [y_info], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def measure_copies(working_set_bytes: int) -> float:
    """Bytes read and written per second by copying an array, half the working set each way.

    So a program that fits a cache is given the cache's speed. The array is walked through in pieces and the fastest one
    counts: a piece is short enough to be copied without an interruption on a busy machine.
    """
    size = max(4096, min(working_set_bytes, _LARGEST_COPY_BYTES) // 2)
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    piece = min(size, _PIECE_BYTES)
    places = cycle(range(0, size - piece + 1, piece))

    def copy() -> None:
        start = next(places)
        target[start : start + piece] = source[start : start + piece]

    return 2 * piece / _best_seconds(copy)


def _best_seconds(run: Callable[[], Any]) -> float:
    """The shortest of the runs that fit the time, of three at least."""
    run()
    times: list[float] = []
    ends = time.perf_counter() + _SECONDS
    while len(times) < 3 or time.perf_counter() < ends:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)
