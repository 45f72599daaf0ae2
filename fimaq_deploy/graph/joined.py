"""Two ONNX files as one: what the first answers is what the second reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import ModelProto, compose, version_converter

from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.saving import write_model

_BEHIND = "behind/"


def join(first: Path, second: Path, path: Path, reads: Mapping[str, str], metadata: Mapping[str, str]) -> None:
    """Write a file that runs the second behind the first.

    The second's operators are brought to the first's opset. Its outputs keep their names; the first's are not answered.
    The batch stays the first's: ONNX Runtime 1.31 refuses its own rewrite of some files whose batch is fixed to 1.

    reads: by input of the second, the output of the first. metadata: of the new file.

    Raises:
        UserError: an operator of the second cannot be brought to the first's opset, or the two do not fit.
    """
    front, back = onnx.load(first), onnx.load(second)
    back = _at_opset(back, _opset(front), second)
    del back.graph.value_info[:]  # of one image that was traced, where the number of objects is that image's
    front.ir_version = back.ir_version = max(front.ir_version, back.ir_version)
    names = [one.name for one in back.graph.output]
    behind = compose.add_prefix(back, _BEHIND)
    try:
        joined = compose.merge_models(front, behind, [(given, _BEHIND + own) for own, given in reads.items()])
    except (ValueError, onnx.checker.ValidationError) as error:
        raise UserError(f"{first.name} and {second.name} cannot be joined: {' '.join(str(error).split())}") from None
    _name_outputs(joined, names)
    onnx.helper.set_model_props(joined, dict(metadata))
    write_model(ir.serde.deserialize_model(joined), path)


def _at_opset(model: ModelProto, wanted: int, path: Path) -> ModelProto:
    try:
        found: ModelProto = version_converter.convert_version(model, wanted)
    except Exception as error:  # of the converter, whatever operator it has no way for
        raise UserError(f"{path.name} cannot be brought to opset {wanted}: {' '.join(str(error).split())}") from None
    return found


def _opset(model: ModelProto) -> int:
    return next(one.version for one in model.opset_import if not one.domain)


def _name_outputs(model: ModelProto, names: list[str]) -> None:
    """A name that a tensor of the first has already is that tensor's."""
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    taken |= {one.name for one in (*model.graph.input, *model.graph.initializer)}
    for output, name in zip(model.graph.output, names, strict=True):
        if name in taken:
            continue
        for node in model.graph.node:
            for ends in (node.input, node.output):
                ends[:] = [name if end == output.name else end for end in ends]
        output.name = name
