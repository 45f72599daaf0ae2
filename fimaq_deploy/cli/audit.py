"""`fimaq-deploy audit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import print_failure, stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.verify.layer_audit import EngineAudit

_PRODUCTS = ("GEMMs", "INT8", "FP8", "FP4", "weight-only", "left alone")
_HEADER = ("block", "kernels", "of floats", *_PRODUCTS, "attention", "dequantized", "conversions")


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
        table = Table(*_HEADER, title=_title(each), title_justify="left", box=SIMPLE_HEAD, show_edge=False)
        for block in each.blocks:
            counts = (block.kernels, block.twin_kernels, block.gemms, block.int8_gemms, block.fp8_gemms)
            rest = (
                block.fp4_gemms,
                block.weight_only_gemms,
                block.left_alone,
                block.attention,
                block.dequantized_weights,
                block.conversions,
            )
            table.add_row(block.name, *("" if value is None else str(value) for value in (*counts, *rest)))
        stdout.print(table)


def _title(audit: EngineAudit) -> str:
    return audit.target + (f", compute capability {audit.compute_capability}" if audit.compute_capability else "")
