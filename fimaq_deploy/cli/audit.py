"""`fimaq-deploy audit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import print_failure, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.verify.block_plan import BlockPlan
    from fimaq_deploy.verify.layer_audit import EngineAudit

# What a column counts of a block. Floats of 8 and 4 bits have one where there are any: a terminal has 80 characters.
_COLUMNS: dict[str, Callable[[BlockPlan], object]] = {
    "kernels": lambda block: block.kernels,
    "of floats": lambda block: block.twin_kernels,
    "GEMMs": lambda block: block.gemms,
    "INT8": lambda block: block.int8_gemms,
    "FP8": lambda block: block.fp8_gemms,
    "FP4": lambda block: block.fp4_gemms,
    "weight-only": lambda block: block.weight_only_gemms,
    "left alone": lambda block: block.left_alone,
    "attention": lambda block: block.attention,
    "dequantized": lambda block: block.dequantized_weights,
    "conversions": lambda block: block.conversions,
}
_RARE = ("FP8", "FP4")


def audit(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A QDQ ONNX file, whoever wrote it.")],
    target: Annotated[str, typer.Option(help="TensorRT-RTX compiles without a GPU, TensorRT on the one that is here.")],
    sm: Annotated[
        list[int] | None,
        typer.Option(help="A GPU generation, such as 89. Repeatable. Default: one engine for all."),
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(help="Promises, with commas, that must hold. Default: what every quantized file should keep."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FP16.onnx", help="The full-precision model, to compare kernels with.")
    ] = None,
    twin: Annotated[Path | None, typer.Option(hidden=True)] = None,
    json: JsonOption = None,
) -> None:
    """Compile a file and say block by block what it became. Exit code 1 where a required promise is broken."""
    from fimaq_deploy.verify.layer_audit import audit as run_audit

    capabilities = [divmod(number, 10) for number in sm] if sm else None
    # --twin is what --against was called before 0.2.
    audits = run_audit(model, target, compute_for=capabilities, against=against or twin, require=require)
    if not write_document(json, audits.document()):
        _print(audits)
    broken = [f"{_title(each)}: {promise}" for each in audits for promise in each.broken]
    for promise in broken:
        print_failure(f"broken: {promise}")
    if broken:
        raise typer.Exit(1)


def _print(audits: Sequence[EngineAudit]) -> None:
    for each in audits:
        names = [name for name in _COLUMNS if name not in _RARE or any(_COLUMNS[name](one) for one in each.blocks)]
        table = Table("block", *names, title=_title(each), title_justify="left", box=SIMPLE_HEAD, show_edge=False)
        table.columns[0].no_wrap, table.columns[0].min_width = True, max(len(one.name) for one in each.blocks)
        for block in each.blocks:
            values = (_COLUMNS[name](block) for name in names)
            table.add_row(block.name, *("" if value is None else str(value) for value in values))
        stdout.print(table)


def _title(audit: EngineAudit) -> str:
    return audit.target + (f", compute capability {audit.compute_capability}" if audit.compute_capability else "")
