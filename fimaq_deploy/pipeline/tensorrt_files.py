"""The TensorRT side of a build: float16 or bfloat16 around the integers, engines, and what they were compiled to.

1. the quantized and the original model run on some calibration images: the largest value decides the float type;
2. the quantized model is written for each TensorRT target, and the original once in the same type, as their yardstick;
3. both are compiled, and the layer plan of the first is audited against that of the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.calibration.findings.float_range import choose_type, largest_values
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.engines.runner import EngineFile
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import Traced, convert_fp_onnx
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.report import schema
from fimaq_deploy.target import HighPrecision, Target, find_target
from fimaq_deploy.verify.layer_audit import EXPECTED, BlockPlan, audit_log, broken_promises, kernel_counts

IMAGES = 32  # whose largest values decide the float type
_SHORT = {"float16": "fp16", "bfloat16": "bf16"}
_AUDITED = frozenset(one.name for one in fields(BlockPlan)) & schema.AuditBlock.model_fields.keys()


@dataclass(frozen=True)
class Twins:
    """The files of the TensorRT side. note: why its floats are of this type, as a sentence."""

    folder: Path
    high_precision: HighPrecision
    note: str

    @property
    def short(self) -> str:
        return _SHORT[self.high_precision]

    @property
    def original_onnx(self) -> Path:
        return self.folder / f"model.{self.short}.onnx"

    def onnx(self, target: str) -> Path:
        return self.folder / f"model.{target}.onnx"

    def engine(self, target: str) -> Path:
        return self.folder / f"model.{target}.engine"

    def original_engine(self, target: str) -> Path:
        return self.folder / f"model.{self.short}.{target}.engine"


def choose_floats(quantized: Any, model: nn.Module, images: Tensor) -> tuple[HighPrecision, str]:
    """The float type that holds what both models compute, and why.

    quantized: a `QuantizedModel`; model: the original. images: calibration images (N, C, H, W).
    """
    return choose_type(largest_values(quantized.stages, images) + largest_values(stages_of(model), images))


def write_twins(
    folder: Path, quantized: Traced, original: Path, floats: tuple[HighPrecision, str], targets: Sequence[str]
) -> Twins:
    """Write the ONNX files. Nothing is traced for them.

    original: the float32 file. floats: of `choose_floats`. targets: names of the TensorRT family.
    """
    twins = Twins(folder, *floats)
    rules: list[Target] = [replace(find_target(name), high_precision=twins.high_precision) for name in targets]
    for target in rules:
        quantized.write(twins.onnx(target.name), target)
    convert_fp_onnx(original, twins.original_onnx, target=rules[0])
    return twins


def compile_twins(twins: Twins, status: schema.TargetStatus) -> tuple[schema.TargetStatus, schema.Audit | None]:
    """Compile both models for a target that can be built here. A graph that its compiler refuses is in the status."""
    target, runtime = status.name, find_runtime(status.name)
    try:
        original = runtime.compile(twins.original_onnx, twins.original_engine(target), verbose=True)
        engine = runtime.compile(twins.onnx(target), twins.engine(target), verbose=True)
    except UserError as error:
        return status.model_copy(update={"not_built": str(error), "failed": True}), None
    return status.model_copy(update={"compile_seconds": engine.build_seconds}), _audit(twins, engine, original)


def _audit(twins: Twins, engine: EngineFile, original: EngineFile) -> schema.Audit:
    counts = kernel_counts(audit_log(original.log, read_structure(twins.original_onnx)))
    blocks = audit_log(engine.log, read_structure(twins.onnx(engine.target)), counts)
    return schema.Audit(
        target=engine.target,
        blocks=[schema.AuditBlock(**{name: asdict(block)[name] for name in _AUDITED}) for block in blocks],
        broken=list(broken_promises(blocks, EXPECTED)),
    )
