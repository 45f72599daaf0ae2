"""`fimaq-deploy bench`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fimaq_deploy.cli.console import stdout
from fimaq_deploy.cli.options import JsonOption, write_document

if TYPE_CHECKING:
    from fimaq_deploy.measure.benchmark import Row


def bench(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="ONNX files or engines.")],
    target: Annotated[
        list[str] | None, typer.Option(help="What runs them. Repeatable; default: by the file's name.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="The full-precision file, which comes first.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch size. Repeatable; default: 1 and 8.")] = None,
    rounds: Annotated[int, typer.Option(help="The most turns for a batch size.")] = 50,
    seconds: Annotated[float, typer.Option(help="Stop a batch size after this time.")] = 10.0,
    threads: Annotated[int | None, typer.Option(help="Of a CPU; default: the runtime's choice.")] = None,
    json: JsonOption = None,
) -> None:
    """Time files in turns, with peak memory and a roofline floor. Ends in one line of JSON."""
    from fimaq_deploy.measure.benchmark import bench as run_bench

    rows = run_bench(
        files,
        targets=target,
        against=against,
        batch_sizes=tuple(batch or (1, 8)),
        rounds=rounds,
        seconds=seconds,
        threads=threads,
    )
    document = rows.document()
    if not write_document(json, document):
        for size in dict.fromkeys(row.latency.batch_size for row in rows):
            stdout.print(_table([row for row in rows if row.latency.batch_size == size]))
        stdout.out(json_format.dumps(document), highlight=False)


def _table(rows: list[Row]) -> Table:
    several = len({row.target for row in rows}) > 1
    names = [f"{Path(row.file).name}{f' on {row.target}' if several else ''}" for row in rows]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    heading = f"batch {rows[0].latency.batch_size}"
    table.add_column(heading, overflow="fold", min_width=len(heading))
    for name in ("p50 / p90 / p99 ms", "images/s", "speed-up", "floor ms", "peak MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    latency, floor = row.latency, row.floor
    low, high = latency.speedup_interval
    unclear = " ?" if low < 1 < high else ""
    return (
        " / ".join(f"{value:.3g}" for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms)),
        f"{latency.images_per_second:,.0f}",
        f"{latency.speedup:.2f}×{unclear}",
        "" if floor is None else f"{floor.milliseconds:.3g} ({100 * floor.milliseconds / latency.p50_ms:.0f} %)",
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f}",
    )
