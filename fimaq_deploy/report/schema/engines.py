"""What targets and their compilers made of it, and where two runtimes part."""

from __future__ import annotations

from pydantic import Field

from fimaq_deploy.report.schema.values import Count, Difference, Part


class TargetStatus(Part):
    """What became of one target."""

    name: str
    not_built: str | None = Field(default=None, description="Why there is no file for it; null where there is one.")
    not_run: str | None = Field(default=None, description="Why it was not run; null where it ran.")
    failed: bool = Field(default=False, description="Whether its compiler was here and refused the graph.")
    compile_seconds: float | None = Field(default=None, description="Null where nothing had to be compiled.")
    ships: str | None = Field(
        default=None,
        description="The original's file, where that is what to ship since the runtime gains nothing from integers.",
    )
    remark: str | None = Field(default=None, description="What to know of the runtime before choosing it.")


class AuditBlock(Part):
    """The kernels of one block in a compiled layer plan."""

    name: str
    kernels: Count
    gemms: Count
    int8_gemms: Count
    weight_only_gemms: Count = Field(
        default=0, description="GEMMs that read integer weights and decode them themselves."
    )
    left_alone: Count = Field(
        default=0,
        description="Products in floats that gain nothing from integers, tiny or of one row an image; no GEMMs.",
    )
    attention: str | None = Field(
        default=None, description="'int8', 'float8', 'float16', ... where it is fused, 'unfused', or null."
    )
    dequantized_weights: Count = Field(
        description="Weights that a kernel of its own writes to memory as floats while the engine runs."
    )
    conversions: Count = Field(description="Kernels that only change a format or a type.")
    twin_kernels: Count | None = Field(
        default=None, description="Kernels of the same block in the full-precision twin."
    )
    fp8_gemms: Count = Field(default=0, description="GEMMs that multiply 8-bit floats.")
    fp4_gemms: Count = Field(default=0, description="GEMMs that multiply 4-bit floats.")


class Audit(Part):
    """What an engine was compiled to."""

    target: str
    compute_capability: str | None = None
    blocks: list[AuditBlock]
    broken: list[str] = Field(default=[], description="Promises that the plan breaks, as sentences.")


class StageParity(Part):
    """One stage computed by two runtimes from the same input."""

    name: str
    largest_difference: Difference = Field(description="Largest absolute difference; null where it is not finite.")
    differing: float = Field(description="Share of the elements, in percent, that differ by more than the tolerance.")
    largest_step: int | None = Field(
        default=None,
        description="By how many steps integers differ at most: those of the stage's own quantizers as written, null "
        "without any; those of the one that it feeds, or of 8 bits over its range, where it is fused.",
    )
    flipped: float | None = Field(default=None, description="Share of those integers, in percent, that differ.")


class Parity(Part):
    """Fake-quant against another runtime, stage by stage."""

    to: str = Field(description="The id of the other row.")
    stages: list[StageParity]
    first_parting: str | None = Field(default=None, description="The first stage beyond the tolerance.")
    differing_weights: list[str] = Field(
        default=[], description="Weights whose integers differ from the quantized model's."
    )
