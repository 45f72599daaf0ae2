"""A bare ONNX file in, whoever wrote it; a clean float32 graph of opset 21 with a free batch out, or a line why not.

The clean graph computes what the file computes: that is proved on images before anything is learned (`proof`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fimaq_deploy.contract import KEY, Contract, parse_contract
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.export.opset import DEFAULT_OPSET
from fimaq_deploy.export.passes import run_passes
from fimaq_deploy.export.passes.folding import fold_constants
from fimaq_deploy.export.passes.idle_pads import drop_idle_pads
from fimaq_deploy.export.passes.tidy import forget_notes, remove_unused
from fimaq_deploy.export.tracing import INPUT
from fimaq_deploy.graph.inspection import load_model
from fimaq_deploy.graph_calibration.batches import free_batch
from fimaq_deploy.graph_calibration.forms import plain_products
from fimaq_deploy.graph_calibration.names import name_by_module
from fimaq_deploy.graph_calibration.observed import observe_shapes
from fimaq_deploy.graph_calibration.shapes import known_sizes
from fimaq_deploy.graph_calibration.upgrade import HALF, to_current_opset, widen
from fimaq_deploy.graph_calibration.values import inferred, lifted, split_stored, take_in

_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "QLinearConv", "MatMulInteger"}
) | {"ConvInteger", "MatMulNBits", "DynamicQuantizeMatMul", "QAttention", "QGemm"}
_ROUNDS = 32  # of folding; each needs a shape that the one before it told
_BRANCHES = frozenset({"If", "Loop", "Scan"})
_FLOATS = (ir.DataType.FLOAT, *HALF)


@dataclass(frozen=True, eq=False)
class Network:
    """A clean graph, and what is known of the file that it comes from.

    path: the file as it was given. shape: (C, H, W) of its images. contract: what the file says of them, if it does.
    dtype: the type of the file's own input. batch: the batch that the file is fixed to, None where it is free.
    halves: whether the file computes in half precision.
    """

    path: Path
    model: ir.Model
    shape: tuple[int, int, int]
    contract: Contract | None
    dtype: ir.DataType
    batch: int | None
    halves: bool
    notes: tuple[str, ...]

    @property
    def graph(self) -> ir.Graph:
        return self.model.graph

    @property
    def parameters(self) -> int:
        """Numbers that the graph stores as floats."""
        stored = [value.const_value for value in self.graph.initializers.values()]
        return sum(one.size for one in stored if one is not None and one.dtype is ir.DataType.FLOAT)


def read_network(path: str | Path, image_size: tuple[int, int] | None = None, in_chans: int | None = None) -> Network:
    """Read a file.

    image_size, in_chans: of its images, where the file leaves them free.

    Raises:
        UserError: it is no ONNX file, it is quantized already, takes something else than images of floats, branches,
            or holds operators or numbers that no quantized file can.
    """
    path = Path(path)
    model = load_model(path)
    told = model.metadata_props.get(KEY)
    contract = None if told is None else parse_contract(told, str(path))
    images = _images(path, model)
    dtype, batch = images.dtype, _whole(images, 0)
    assert dtype is not None
    shape = _shape(path, images, model, image_size, in_chans, contract)
    _refuse(path, model)
    take_in(model.graph)
    opset = model.opset_imports.get("", 0)
    try:
        model = to_current_opset(model)
        lifted(model)
    except Exception as error:  # onnx's converter raises whatever an operator leads it to
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path} cannot be brought from opset {opset} to {DEFAULT_OPSET} ({reason}): export it at {DEFAULT_OPSET}"
        ) from None
    halves = widen(model)
    _fix_images(model.graph, shape, batch)
    _settle(model)
    _refuse_operators(path, model)
    name_by_module(model)
    _require_finite(path, model.graph)
    if batch is not None:
        inferred(model)
        free_batch(path, model, batch)
    _settle(model)
    _require_floats(path, model.graph)
    observe_shapes(model, shape)
    known_sizes(model.graph)
    run_passes(model, (fold_constants, drop_idle_pads))
    plain_products(model.graph)  # nothing is folded after that: two Transposes would become one again
    run_passes(model, (remove_unused, forget_notes))
    observe_shapes(model, shape)
    notes = _notes(path, model, opset, halves, batch)
    return Network(path, model, shape, contract, dtype, batch, halves, notes)


def _settle(model: ir.Model) -> None:
    """Fold what is constant, which tells further shapes, which make more constant."""
    for _ in range(_ROUNDS):
        before = len(model.graph)
        inferred(model)
        told = known_sizes(model.graph) or split_stored(model.graph)
        run_passes(model, (fold_constants, remove_unused))
        if len(model.graph) == before and not told:
            break
    inferred(model)


def _notes(path: Path, model: ir.Model, opset: int, halves: bool, batch: int | None) -> tuple[str, ...]:
    told = []
    if opset != DEFAULT_OPSET:
        told.append(f"{path.name} was brought from opset {opset} to {DEFAULT_OPSET}")
    if halves:
        told.append(f"{path.name} computes in half precision; it was quantized from the same weights in float32")
    if batch is not None:
        told.append(f"{path.name} takes batches of {batch} alone; the files written here take any")
    return tuple(told)


def _images(path: Path, model: ir.Model) -> ir.Value:
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs) or "none"
        raise UserError(f"{path} takes {len(inputs)} inputs ({shown(names)}): expected one, of images")
    (images,) = inputs
    del model.graph.inputs[:]
    model.graph.inputs.append(images)
    if images.dtype not in _FLOATS:
        kind = "an unknown type" if images.dtype is None else images.dtype.name
        raise UserError(f"{path} reads {kind}: expected float32 or float16 images, normalised outside of the file")
    if images.shape is None or len(images.shape) != 4:
        raise UserError(f"{path} reads a tensor of shape {images.shape}: expected images (N, C, H, W)")
    return images


def _whole(value: ir.Value, axis: int) -> int | None:
    assert value.shape is not None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def _shape(
    path: Path,
    images: ir.Value,
    model: ir.Model,
    image_size: tuple[int, int] | None,
    in_chans: int | None,
    contract: Contract | None,
) -> tuple[int, int, int]:
    """What the file says, else the contract, else what was asked for."""
    said = contract.shape if contract else (None, None, None)
    asked = (in_chans or _channels_read(images), *(image_size or (None, None)))
    found = []
    for axis, name in enumerate(("--in-chans", "--image-size", "--image-size")):
        own, wanted = _whole(images, axis + 1), asked[axis]
        if own is not None and wanted is not None and own != wanted:
            raise UserError(f"{name}: {path} takes images of {_text(images)}, which cannot be changed: leave it out")
        size = own or said[axis] or wanted
        if size is None:
            raise UserError(f"{path} takes images of {_text(images)} and does not say their size: give {name}")
        found.append(size)
    if found[0] > 64:
        raise UserError(f"{path} reads images of {_text(images)}: expected channels first, (N, C, H, W)")
    return found[0], found[1], found[2]


def _channels_read(images: ir.Value) -> int | None:
    """The channels that a convolution of the images reads."""
    for node, index in images.uses():
        kernels = node.inputs[1].shape if node.op_type == "Conv" and index == 0 and node.inputs[1] is not None else None
        if kernels is not None and isinstance(kernels[1], int):
            return kernels[1] * node.attributes.get_int("group", 1)
    return None


def _text(images: ir.Value) -> str:
    return "(" + ", ".join(str(size) for size in images.shape or ()) + ")"


def _fix_images(graph: ir.Graph, shape: tuple[int, int, int], batch: int | None) -> None:
    """Everything but the batch is known, and what else was said of shapes is forgotten."""
    (images,) = graph.inputs
    images.shape = ir.Shape(["batch" if batch is None else batch, *shape])
    for node in graph:
        for value in node.outputs:
            value.shape = None
    for value in graph.outputs:
        value.shape = None
    if images.name != INPUT and all(value.name != INPUT for value in _every_value(graph)):
        images.name = INPUT


def _every_value(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]


def _refuse(path: Path, model: ir.Model) -> None:
    """What can be seen before anything is changed."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            if node.op_type in _QUANTIZED:
                raise UserError(
                    f"{path} is quantized already ({node.op_type} '{shown(str(node.name))}'): name the float model "
                    "that it was made from"
                )


def _refuse_operators(path: Path, model: ir.Model) -> None:
    if model.functions:
        raise UserError(f"{path} calls functions that cannot be inlined: export it without them")
    for node in model.graph:
        if node.op_type in _BRANCHES:
            raise UserError(
                f"{path} branches ({node.op_type} '{shown(str(node.name))}'): export it with fixed control flow, such "
                "as from torch.onnx.export with dynamo=True"
            )
        if node.domain not in ("", "ai.onnx"):
            raise UserError(
                f"{path} has operators of the domain {node.domain} ({node.op_type}): export it with operators of "
                "standard ONNX alone, before any runtime's own optimiser"
            )


def _require_floats(path: Path, graph: ir.Graph) -> None:
    for value in graph.outputs:
        if value.dtype is not ir.DataType.FLOAT:
            raise UserError(f"{path} returns {value.name} as {value.dtype}: expected outputs of floats")


def _require_finite(path: Path, graph: ir.Graph) -> None:
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype is not ir.DataType.FLOAT or tensor.size < 16:
            continue
        array = tensor.numpy()
        nan = int(np.isnan(array).sum())
        if nan:
            raise UserError(f"{path}: {nan} of {array.size} numbers of {value.name} are NaN; export finite weights")
        if array.ndim > 1 and _is_weight(value) and not np.isfinite(array).all():
            raise UserError(f"{path}: {value.name} holds infinite weights; export finite ones")


def _is_weight(value: ir.Value) -> bool:
    """Whether a product reads it: a mask may be infinite."""
    return any(use.node.op_type in ("MatMul", "Gemm", "Conv") for use in value.uses())
