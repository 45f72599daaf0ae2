"""PyTorch modules to ONNX files, opset 21, dynamic batch, standard operators only.

1. `tracing` runs torch's exporter once, in float32, with a batch of 2 and a symbolic batch dimension,
2. `translate` turns the quantization operators into Clip, QuantizeLinear and DequantizeLinear,
3. `passes` fold constants and tidy, leaving weights as INT8 or INT4 initializers, and rewrite the graph for each file
   as its target needs it,
4. the result is checked and written whole.

One quantized model has a file for each high-precision type: float32 for ONNX Runtime and OpenVINO, float16 or bfloat16
around INT8 for TensorRT. The integers are the same. Inputs (`images`) and outputs (`logits`) are float32 in each.

bfloat16 holds 8 significant bits, so scales with more (of INT4 blocks, and of grids below 4 bits) are rounded in that
file alone. It was compiled but not run: ONNX Runtime's CPU provider has no kernels for it.

Numbers of more than 2 GB lie beside the file, in `NAME.onnx.data`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from torch import nn

from fimaq_deploy.contract import KEY, Contract, Output, parse_contract
from fimaq_deploy.export.opset import DEFAULT_OPSET, check_opset, check_storage, least_opset, to_opset
from fimaq_deploy.export.passes import CLEANING, passes_for, run_passes
from fimaq_deploy.export.passes.standard import require_standard
from fimaq_deploy.export.tracing import count_weights, trace_module
from fimaq_deploy.graph.inspection import load_model
from fimaq_deploy.graph.saving import write_model
from fimaq_deploy.models.describe import contract_of, image_shape
from fimaq_deploy.models.families import find_family
from fimaq_deploy.target import ANY_RUNTIME, Target, WeightStorage, find_target
from fimaq_deploy.version import __version__


def export_onnx(
    quantized: nn.Module,
    path: str | Path,
    *,
    target: str | Target | None = None,
    input_shape: tuple[int, int, int] | None = None,
    contract: Contract | None = None,
    opset: int | None = None,
    weight_storage: WeightStorage = "auto",
) -> Path:
    """Write a frozen quantized model as QDQ ONNX. For several targets, `trace` it once and write each from that.

    target: whose high-precision type the file has; None is float32, which every runtime here reads.
    input_shape: (C, H, W); None reads it from the timm model inside.
    contract: how images are prepared, for the file's `metadata_props`; None is what the model's `pretrained_cfg` says,
        and nothing where it has none.
    opset: 17, 19, 21 or 23, for runtimes that know no other (`export.opset`); None is 21.
    weight_storage: of weights of at most four bits: "int4" takes half the bytes of "int8"; "auto" takes them wherever
        the target makes INT8 of them once, when it loads the file, and not in every run.

    Raises:
        UserError: unknown target, what the graph needs came after the opset, or the file cannot be written.
    """
    rules = _rules(target)
    return trace(quantized, input_shape, contract).write(path, rules, opset, weight_storage)


def export_fp_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    target: str | Target | None = None,
    input_shape: tuple[int, int, int] | None = None,
    contract: Contract | None = None,
    opset: int | None = None,
) -> Path:
    """Write a model that is not quantized: what the quantized one is compared with. Arguments as in `export_onnx`."""
    return export_onnx(model, path, target=target, input_shape=input_shape, contract=contract, opset=opset)


@dataclass(frozen=True)
class Traced:
    """A model as a float32 graph, from which the file of any target is written. Made by `trace`.

    weights: how many of its tensors are integers and must stay so. contract: what its files say of their input.
    """

    model: ir.Model
    weights: int = 0
    contract: Contract | None = None

    def write(
        self,
        path: str | Path,
        target: str | Target | None = None,
        opset: int | None = None,
        weight_storage: WeightStorage = "auto",
    ) -> Path:
        """Write the file of a target, and leave this graph as it is. Arguments and errors as of `export_onnx`."""
        return _write(
            self.model.clone(), _rules(target), self.weights, Path(path), self.contract, opset, weight_storage
        )


def trace(
    model: nn.Module, input_shape: tuple[int, int, int] | None = None, contract: Contract | None = None
) -> Traced:
    """Trace a float32 model, quantized and frozen or not. Arguments as in `export_onnx`.

    The graph shares the model's numbers: write what is wanted of it before they change.
    """
    shape = input_shape or getattr(model, "input_shape", None) or image_shape(model)
    family = find_family(model)
    program = trace_module((model if family is None else family.as_chain(model, shape)).eval(), shape)
    run_passes(program.model, CLEANING)
    return Traced(program.model, count_weights(program.exported_program), contract or contract_of(model, shape))


def convert_fp_onnx(source: str | Path, path: str | Path, *, target: str | Target, opset: int | None = None) -> Path:
    """Write a target's file from the float32 file that `export_fp_onnx` wrote, without the model.

    Raises:
        UserError: unknown target, a file that cannot be read, or one that cannot be written.
    """
    model = load_model(source)
    told = model.metadata_props.get(KEY)
    contract = None if told is None else parse_contract(told, str(source))
    return _write(model, _rules(target), 0, Path(path), contract, opset)


def _rules(target: str | Target | None) -> Target:
    return target if isinstance(target, Target) else find_target(target or ANY_RUNTIME)


def _write(
    model: ir.Model,
    target: Target,
    weights: int,
    path: Path,
    contract: Contract | None,
    opset: int | None,
    weight_storage: WeightStorage = "auto",
) -> Path:
    """What every file goes through. `model` is changed; `weights` is `Traced.weights`."""
    asked = DEFAULT_OPSET if opset is None else check_opset(opset)
    run_passes(model, passes_for(target, check_storage(weight_storage, asked)))
    require_standard(model, weights)
    to_opset(model, least_opset(model, opset))
    if contract is not None:
        model.metadata_props[KEY] = _of_graph(contract, model.graph).text()
    model.producer_name, model.producer_version, model.graph.name = "fimaq-deploy", __version__, "main"
    return write_model(model, path)


def _of_graph(contract: Contract, graph: ir.Graph) -> Contract:
    """The contract with the names, types and shapes that a graph has."""
    (images,) = graph.inputs
    return contract.named(str(images.name), [_output(value) for value in graph.outputs])


def _output(value: ir.Value) -> Output:
    sides = () if value.shape is None else tuple(value.shape)[1:]
    dtype = "float32" if value.dtype is None else str(value.dtype.numpy())
    return Output(str(value.name), dtype, tuple(side if isinstance(side, int) else None for side in sides))
