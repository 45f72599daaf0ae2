"""The preprocessing of the contract inside of a file: uint8 pixels (N, H, W, C) in, resized and cropped already.

Cast, Div, Sub, Div and Transpose stand before the graph: (pixel / 255 - mean) / std in float32, the same operations in
the same order as outside, so that the numbers are the same in every bit. Resizing and cropping can stand before them
(`export.resizing`), for ONNX Runtime on a CPU, and is not Pillow's in each bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fimaq_deploy.contract import KEY, Contract, Resizing, parse_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.resizing import Resizer, require_resizable
from fimaq_deploy.files import write_whole
from fimaq_deploy.graph.edit import stored, typed
from fimaq_deploy.graph.inspection import load_model

PIXELS = "pixels"  # the name of the input

_ATTRIBUTES = {
    "Cast": ("to", ir.AttributeType.INT, ir.DataType.FLOAT),
    "Transpose": ("perm", ir.AttributeType.INTS, [0, 3, 1, 2]),
}


def embed_preprocessing(
    source: str | Path, path: str | Path, *, resize: bool = False, measured: Resizing | None = None
) -> Path:
    """Write an exported file again so that it takes pixels, with the contract that says so.

    resize: take pixels of any height and width, and resize and crop them too; for ONNX Runtime on a CPU. measured: what
    the contract then says of how exact that is.

    Raises:
        UserError: no such file, one without a contract or that takes pixels already, one whose resizing ONNX cannot
            say, or `path` cannot be written.
    """
    model = load_model(source)
    told = model.metadata_props.get(KEY)
    if told is None:
        raise UserError(f"{source} has no contract of its input: export it again with this version")
    contract = parse_contract(told, str(source))
    if contract.pixels:
        raise UserError(f"{source} takes pixels already: name the file that takes prepared images")
    if resize:
        require_resizable(contract, model.opset_imports[""])
    _embed(model.graph, contract, resize)
    resizing = (measured or Resizing()) if resize else None
    model.metadata_props[KEY] = replace(contract, pixels=True, input_name=PIXELS, resizing=resizing).text()
    write_whole(Path(path), ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    return Path(path)


def resizing_model(contract: Contract, path: str | Path) -> Path:
    """Resizing and cropping alone as a file, from pixels of any size to those of the crop, to measure it."""
    opset = 21
    require_resizable(contract, opset)
    pixels = typed(ir.Value(name=PIXELS), ir.DataType.UINT8, ir.Shape([None, None, None, contract.shape[0]]))
    graph = ir.Graph([pixels], [], nodes=[], opset_imports={"": opset}, name="resizing")
    resizer = Resizer(graph, PIXELS)
    out = resizer(pixels, contract)
    out.shape = ir.Shape([None, *contract.shape[1:], contract.shape[0]])
    graph.extend(resizer.nodes)
    graph.outputs.append(out)
    model = ir.Model(graph, ir_version=10)
    write_whole(Path(path), ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    return Path(path)


def _embed(graph: ir.Graph, contract: Contract, resize: bool) -> None:
    (images,) = graph.inputs
    assert images.shape is not None and images.name is not None
    batch, (channels, height, width) = images.shape[0], contract.shape
    last = ir.Shape([batch, height, width, channels])
    given = ir.Shape([batch, "height", "width", channels]) if resize else last
    pixels = typed(ir.Value(name=PIXELS), ir.DataType.UINT8, given)
    value, nodes = pixels, []
    if resize:
        resizer = Resizer(graph, PIXELS)
        value = typed(resizer(pixels, contract), ir.DataType.UINT8, last)
        nodes += resizer.nodes
    for kind, constant in _steps(contract).items():
        operator = kind.partition("_")[0]
        inputs = [value] if constant is None else [value, stored(graph, f"{PIXELS}_{kind.lower()}", constant)]
        shape = images.shape if operator == "Transpose" else last
        out = typed(ir.Value(name=f"{PIXELS}_{kind}"), ir.DataType.FLOAT, shape)
        attributes = [ir.Attr(*_ATTRIBUTES[operator])] if operator in _ATTRIBUTES else []
        nodes.append(ir.Node("", operator, inputs, attributes, outputs=[out], name=f"{PIXELS}_{kind}"))
        value = out
    first = graph[0]
    ir.convenience.replace_all_uses_with(images, value)
    graph.insert_before(first, nodes)
    graph.inputs[0] = pixels


def _steps(contract: Contract) -> Mapping[str, np.ndarray | None]:
    """Operators in their order, each with the constant that it reads."""
    return {
        "Cast": None,
        "Div_scale": np.array(255, np.float32),
        "Sub_mean": np.array(contract.mean, np.float32),
        "Div_std": np.array(contract.std, np.float32),
        "Transpose": None,
    }
