"""Every ONNX file of a build: one that most targets read, one for each that needs its own, and the originals.

1. the quantized model is traced once and written for no target in particular (`model.onnx`);
2. the original is written in float32 (`model.fp32.onnx`), unless an earlier build has done so;
3. where a target computes in half precision, both models run on some calibration images: the largest value decides
   between float16 and bfloat16, and the original is written in that type too, as the yardstick;
4. the quantized model is written for each target that reads a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.calibration.findings.float_range import choose_type, largest_values
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.contract import Contract
from fimaq_deploy.engines.runtimes import ONNX, Runtime
from fimaq_deploy.export import Traced, convert_fp_onnx, export_fp_onnx, trace
from fimaq_deploy.graph.products import dequantized_products, is_quantized
from fimaq_deploy.graph.saving import copy_model
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.target import HighPrecision, Target, WeightStorage

FP_ONNX = "model.fp32.onnx"
IMAGES = 32  # whose largest values decide the float type
_SHORT: dict[HighPrecision, str] = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


@dataclass(frozen=True)
class Floats:
    """The floats around the integers of the targets with half precision. note: why they are of this type."""

    high_precision: HighPrecision
    note: str


@dataclass(frozen=True)
class Files:
    """The ONNX files of a build, by who reads them. half: None where no target computes in half precision."""

    folder: Path
    half: Floats | None = None

    @property
    def onnx(self) -> Path:
        return self.folder / ONNX

    @property
    def original(self) -> Path:
        """The original in float32."""
        return self.folder / FP_ONNX

    def has_yardstick(self, runtime: Runtime) -> bool:
        """Whether a target is measured beside the original in its own floats: where it compiles, or they are half."""
        return runtime.compiler is not None or _is_half(runtime)

    def ships_original(self, runtime: Runtime) -> bool:
        """Whether a target's users ship the original in its floats: its kernels multiply no integers, and most of what
        is quantized in the file that is written for it is dequantized in every run.
        """
        if runtime.target.integers.native:
            return False
        products = read_structure(runtime.onnx(self.folder)).products
        quantized, idle = sum(map(is_quantized, products)), len(dequantized_products(products))
        return 2 * idle > quantized

    def yardstick_short(self, runtime: Runtime) -> str:
        """The type of those floats, as in a file's name."""
        return _SHORT[self.half.high_precision if self.half and _is_half(runtime) else "float32"]

    def yardstick_onnx(self, runtime: Runtime) -> Path:
        return self.folder / f"model.{self.yardstick_short(runtime)}.onnx"

    def yardstick(self, runtime: Runtime) -> Path:
        """What the target runs of the original: that file, or the engine that is compiled from it."""
        if runtime.compiler is None:
            return self.yardstick_onnx(runtime)
        return self.folder / f"model.{self.yardstick_short(runtime)}.{runtime.name}{runtime.suffix}"


def write_files(
    folder: Path,
    quantized: QuantizedModel,
    model: nn.Module,
    images: Any,
    runtimes: Sequence[Runtime],
    earlier: Path | None = None,
    contract: Contract | None = None,
    opset: int | None = None,
    weight_storage: WeightStorage = "auto",
) -> Files:
    """Write them all. Each model is traced once.

    model: the original. images: a source of calibration images. earlier: the original's float32 file of another build.
    contract: what each file says of its input; None: what the model itself says. opset: of every file; None is 21.
    weight_storage: of weights of at most four bits, as of `export_onnx`.
    """
    traced = trace(quantized, contract=contract)

    def original(path: Path) -> object:
        return export_fp_onnx(model, path, contract=contract, opset=opset)

    def choose() -> Floats:
        return choose_floats(quantized, model, images.take(IMAGES))

    return write_traced(folder, traced, original, choose, runtimes, earlier, opset, weight_storage)


def write_traced(
    folder: Path,
    traced: Traced,
    write_original: Callable[[Path], object],
    choose: Callable[[], Floats],
    runtimes: Sequence[Runtime],
    earlier: Path | None = None,
    opset: int | None = None,
    weight_storage: WeightStorage = "auto",
) -> Files:
    """The same of a graph that is there already. write_original: writes the original in float32. choose: which floats
    hold what both compute, asked where a target computes in half precision.
    """
    original = folder / FP_ONNX
    traced.write(folder / ONNX, opset=opset, weight_storage=weight_storage)
    if earlier is not None and earlier.is_file():
        copy_model(earlier, original)
    else:
        write_original(original)
    own = [runtime for runtime in runtimes if not runtime.target.reads_the_common_file]
    half = [runtime for runtime in own if _is_half(runtime)]
    files = Files(folder, choose() if half else None)
    for runtime in own:
        traced.write(runtime.onnx(folder), _rules(runtime, files.half), opset, weight_storage)
    if half:
        rules = _rules(half[0], files.half)
        convert_fp_onnx(original, files.yardstick_onnx(half[0]), target=rules, opset=opset)
    return files


def choose_floats(quantized: Any, model: nn.Module, images: Tensor) -> Floats:
    """The float type that holds what both models compute, and why.

    quantized: a `QuantizedModel`; model: the original. images: calibration images (N, C, H, W).
    """
    return Floats(*choose_type(largest_values(quantized.stages, images) + largest_values(stages_of(model), images)))


def _rules(runtime: Runtime, half: Floats | None) -> Target:
    if half is None or not _is_half(runtime):
        return runtime.target
    return replace(runtime.target, high_precision=half.high_precision)


def _is_half(runtime: Runtime) -> bool:
    return runtime.target.high_precision != "float32"
