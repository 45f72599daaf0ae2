"""PyTorch modules to ONNX files, opset 21, dynamic batch, standard operators only.

1. torch traces the module once, in float32, with a batch of 2 and a symbolic batch dimension,
2. `translate` turns the quantization operators into Clip, QuantizeLinear and DequantizeLinear,
3. `passes` folds constants and tidies, leaving weights as INT8 or INT4 initializers,
4. for each file, the graph is rewritten as its target needs it: `integer_products` for CPUs and TensorRT-RTX, `fusion`
   for TensorRT, whose floats `precision` and `float16_attention` make float16 or bfloat16, and `first_row` for all,
5. the result is checked and written whole.

One quantized model has a twin for each high-precision type: float32 for ONNX Runtime and OpenVINO, float16 or bfloat16
around INT8 for TensorRT. The integers are the same. Inputs (`images`) and outputs (`logits`) are float32 in each.

bfloat16 holds 8 significant bits, so scales with more (of INT4 blocks, and of grids below 4 bits) are rounded in that
twin alone. It was compiled but not run: ONNX Runtime's CPU provider has no kernels for it.

Not covered: files over 2 GB (external data).
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.export import first_row, float16_attention, fusion, integer_products, passes
from fimaq_deploy.export.precision import lower_precision
from fimaq_deploy.export.translate import TRANSLATIONS
from fimaq_deploy.files import write_whole
from fimaq_deploy.graph.inspection import load_model
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.models.families import find_family
from fimaq_deploy.target import Target, find_target

OPSET = 21
INPUT, OUTPUT = "images", "logits"

_CPU_REWRITES = (passes.transpose_before_quantizing, integer_products.rows_as_batch)
_WEIGHT_OPERATORS = (
    torch.ops.fimaq.dequantize_weight.default,
    torch.ops.fimaq.dequantize_weight_blocked.default,
)


def export_onnx(
    quantized: nn.Module,
    path: str | Path,
    *,
    target: str | Target | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> Path:
    """Write a frozen quantized model as QDQ ONNX. For several targets, `trace` it once and write each from that.

    target: whose high-precision type the file has; None is float32, which every runtime here reads.
    input_shape: (C, H, W); None reads it from the timm model inside.

    Raises:
        UserError: unknown target, or the file cannot be written.
    """
    rules = find_target(target) if isinstance(target, str) else target
    return trace(quantized, input_shape).write(path, rules)


def export_fp_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    target: str | Target | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> Path:
    """Write a model that is not quantized: what the quantized one is compared with. Arguments as in `export_onnx`."""
    return export_onnx(model, path, target=target, input_shape=input_shape)


@dataclass(frozen=True)
class Traced:
    """A model as a float32 graph, from which the file of any target is written. Made by `trace`.

    weights: how many of its tensors are integers and must stay so.
    """

    model: ir.Model
    weights: int = 0

    def write(self, path: str | Path, target: str | Target | None = None) -> Path:
        """Write the file of a target, and leave this graph as it is. Arguments and errors as of `export_onnx`."""
        rules = find_target(target) if isinstance(target, str) else target
        model = self.model.clone()
        if rules is None or rules.high_precision == "float32":
            for rewrite in _CPU_REWRITES:
                rewrite(model.graph)
        if rules is None or rules.patches == "product":
            integer_products.patches_as_product(model.graph)
        passes.finish(model)
        return _write(model, rules, self.weights, Path(path))


def trace(model: nn.Module, input_shape: tuple[int, int, int] | None = None) -> Traced:
    """Trace a float32 model, quantized and frozen or not. Arguments as in `export_onnx`.

    The graph shares the model's numbers: write what is wanted of it before they change.
    """
    shape = input_shape or getattr(model, "input_shape", None) or image_shape(model)
    family = find_family(model)
    program = _trace((model if family is None else family.as_chain(model, shape)).eval(), shape)
    passes.clean(program.model)
    return Traced(program.model, _count_weights(program.exported_program))


def convert_fp_onnx(source: str | Path, path: str | Path, *, target: str | Target) -> Path:
    """Write a target's file from the float32 file that `export_fp_onnx` wrote, without the model.

    Raises:
        UserError: unknown target, a file that cannot be read, or one that cannot be written.
    """
    rules = find_target(target) if isinstance(target, str) else target
    return _write(load_model(source), rules, 0, Path(path))


def _write(model: ir.Model, rules: Target | None, weights: int, path: Path) -> Path:
    """What every file gets in the end. `model` is changed; `weights` is `Traced.weights`."""
    if rules is not None:
        _suit(model.graph, rules)
    first_row.drop_unread_rows(model.graph)
    passes.require_standard(model, weights)
    _sign(model)
    write_whole(path, ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    return path


def _suit(graph: ir.Graph, rules: Target) -> None:
    """What a target's compiler needs. Integers are clipped first, by float32 scales, which no type has rounded."""
    if rules.clip == "integers":
        fusion.clip_integers(graph)
    if rules.high_precision == "bfloat16":
        float16_attention.float16_attention(graph)
    if rules.high_precision != "float32":
        lower_precision(graph, rules.high_precision)
    if rules.splits_products:
        fusion.guard_fused_products(graph)


def _trace(module: nn.Module, shape: Sequence[int]) -> Any:
    # Constants are folded on the host, and a graph from there is the same.
    if any(not is_host(tensor.device) for tensor in (*module.parameters(), *module.buffers())):
        module = copy.deepcopy(module).cpu()
    with _quiet(), torch.no_grad():
        return torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: "batch"},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            custom_translation_table=TRANSLATIONS,
            optimize=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns about what it handles itself; its errors stay exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _count_weights(program: torch.export.ExportedProgram) -> int:
    return sum(node.target in _WEIGHT_OPERATORS for node in program.graph.nodes)


def _sign(model: ir.Model) -> None:
    from fimaq_deploy.version import __version__

    model.producer_name, model.producer_version = "fimaq-deploy", __version__
    model.graph.name = "main"
