"""ONNX files as they are read, and the integers of their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.whole import is_file
from fimaq_deploy.graph.edit import is_integer_weight, numpy_of, unwidened
from fimaq_deploy.graph.protos import is_text_whole
from fimaq_deploy.manifest import check_file

_Model = TypeVar("_Model")


def load_graph(path: str | Path) -> ir.Graph:
    """The graph of an ONNX file. Raises as `load_model`."""
    return load_model(path).graph


def load_model(path: str | Path) -> ir.Model:
    """An ONNX file.

    Raises:
        UserError: no such file, not an ONNX model, one whose external data is missing, or one of a build that is not
            what the build wrote.
    """
    model = _read(path, ir.load)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor) and not Path(value.const_value.path).is_file():
            raise UserError(f"{path} keeps its numbers in {value.const_value.path}, which is missing: copy it too")
    return model


def load_proto(path: str | Path) -> onnx.ModelProto:
    """An ONNX file as it is, however broken the graph in it. External data is not read.

    Raises:
        UserError: no such file, not an ONNX model, or one of a build that is not what the build wrote.
    """
    model = _read(path, partial(onnx.load, load_external_data=False))
    if not is_text_whole(model):
        raise UserError(f"{path} is not an ONNX model (names that are no UTF-8): it may be damaged")
    return model


def _read(path: str | Path, load: Callable[[str | Path], _Model]) -> _Model:
    if not is_file(Path(path)):
        raise UserError(f"no ONNX file {shown(str(path))}: name one that exists")
    check_file(Path(path))
    try:
        return load(path)
    except Exception as error:  # protobuf's decoder has an exception of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not an ONNX model ({reason}): it may be truncated or of another format") from error


def integer_weights(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """The integers of every quantized weight by its name in the file; INT4 is unpacked, one integer an int8. Values of
    8-bit floats are float32.
    """
    found = {}
    for node in load_graph(path):
        stored = unwidened(node.inputs[0]) if is_integer_weight(node) else None
        if stored is not None and (array := numpy_of(stored)) is not None:
            found[str(stored.name)] = array if array.dtype.kind in "iu" else array.astype(np.float32)
    return found
