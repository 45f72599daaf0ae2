"""What a compiled plan may be held to, block by block, and each breach as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.verify.block_plan import BlockPlan


def _int8_gemms(block: BlockPlan) -> str | None:
    if block.float_gemms:
        return f"not in INT8: {_some(block.float_gemms)}"
    others = block.fp8_gemms + block.fp4_gemms
    return f"{others} of {block.gemms} GEMMs in FP8 or FP4" if others else None


def _gemms_as_written(block: BlockPlan) -> str | None:
    return (
        f"quantized, but compiled to a floating-point product: {_some(block.lost_gemms)}" if block.lost_gemms else None
    )


def _fused_attention(block: BlockPlan) -> str | None:
    return "attention is not fused" if block.attention == "unfused" else None


def _no_weight_dequant(block: BlockPlan) -> str | None:
    count = block.dequantized_weights
    return f"{count} weight{'s' * (count > 1)} dequantized at run time" if count else None


def _no_more_kernels(block: BlockPlan) -> str | None:
    twin = block.twin_kernels
    if twin is None or block.kernels <= twin:
        return None
    return f"{block.kernels} kernels, but {twin} in the full-precision twin"


PROMISES: dict[str, Callable[[BlockPlan], str | None]] = {
    "int8-gemms=all": _int8_gemms,
    "gemms-as-written": _gemms_as_written,
    "fused-attention": _fused_attention,
    "no-weight-dequant": _no_weight_dequant,
    "no-more-kernels": _no_more_kernels,
}
# What every quantized file should keep; `int8-gemms=all` asks more of it than a weight-only file says.
EXPECTED = ("gemms-as-written", "fused-attention", "no-weight-dequant")


def parse_promises(asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """The promises in a list, or in a text with commas; `EXPECTED` for None.

    Raises:
        UserError: an unknown one, or none at all.
    """
    if asked is None:
        return EXPECTED
    words = asked.split(",") if isinstance(asked, str) else asked
    names = tuple(filter(None, (name.strip() for name in words)))
    if isinstance(asked, str) and not names:
        raise UserError(f"--require '{shown(asked)}' asks for nothing: expected some of {','.join(PROMISES)}")
    for name in names:
        if name not in PROMISES:
            raise UserError(f"unknown promise '{name}': expected some of {','.join(PROMISES)}")
    return names


def broken_promises(blocks: Sequence[BlockPlan], require: Sequence[str]) -> tuple[str, ...]:
    """Each breach as a sentence. Blocks that break a promise in the same way share one."""
    broken: dict[str, list[str]] = {}
    for name in require:
        for block in blocks:
            problem = PROMISES[name](block)
            if problem:
                broken.setdefault(problem, []).append(block.name)
    return tuple(f"{_some(names)}: {problem}" for problem, names in broken.items())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
