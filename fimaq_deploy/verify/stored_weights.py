"""Whether two files hold the same integers of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fimaq_deploy.engines.runner import Array
from fimaq_deploy.graph.inspection import integer_weights


def differing_weights(first: str | Path, second: str | Path) -> Sequence[str]:
    """The weights whose integers differ between two files, or that only one of them has. Compared exactly.

    A file is ONNX, or the `quantized.safetensors` that a quantized model is saved as. A convolution in one file and the
    product that it is in the other have the same weights.
    """
    ours, theirs = _stored_integers(first), _stored_integers(second)
    both = {name for name in ours.keys() & theirs.keys() if np.array_equal(_matrix(ours[name]), _matrix(theirs[name]))}
    return sorted((ours.keys() | theirs.keys()) - both)


def _stored_integers(path: str | Path) -> dict[str, Array]:
    if Path(path).suffix != ".safetensors":
        return dict(integer_weights(path))
    from fimaq_deploy.calibration.state import read_state

    state, _ = read_state(Path(path))
    # Scales of blocks are stored as 8-bit floats too.
    few = {name: tensor for name, tensor in state.items() if tensor.dtype.itemsize == 1}
    stored = {name: tensor for name, tensor in few.items() if name.endswith((".q_weight", ".q_scale"))}
    return {name: (each.float() if each.is_floating_point() else each).numpy() for name, each in stored.items()}


def _matrix(weights: Array) -> Array:
    """Weights as [in, out]; a convolution's are [out, in, height, width]."""
    return weights.reshape(len(weights), -1).T if weights.ndim == 4 else weights
