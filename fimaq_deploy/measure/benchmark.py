"""How fast any ONNX files or engines are here, beside what the machine allows at best.

All are timed in turns in one run (`fimaq_deploy.measure.latency`), each is run alone once for its peak memory, and
the work that an ONNX file holds is counted and divided by rates measured here (`fimaq_deploy.measure.roofline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fimaq_deploy.engines import load_engine
from fimaq_deploy.engines.load import guess_target
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.latency import Latency, compare_latency
from fimaq_deploy.measure.memory import peak_memory_bytes
from fimaq_deploy.measure.rates import measure_copies, measure_operations
from fimaq_deploy.measure.roofline import Rates, Work, count_work, floor_ms

_CPUS = ("onnxruntime-cpu", "openvino-cpu")


@dataclass(frozen=True)
class Floor:
    """The least time of one run, with what it follows from."""

    milliseconds: float
    work: Work
    rates: Rates


@dataclass(frozen=True)
class Row:
    """One file on one target at one batch size.

    floor: None for an engine, which does not say what it computes, and on a GPU, whose rates are not measured.
    peak_memory_bytes: of the process that ran the file alone at the largest batch; None where the system does not tell.
    """

    file: str
    target: str
    latency: Latency
    floor: Floor | None
    peak_memory_bytes: int | None


def bench(
    files: Sequence[str | Path],
    *,
    targets: Sequence[str] | None = None,
    against: str | Path | None = None,
    batch_sizes: Sequence[int] = (1, 8),
    rounds: int = 50,
    seconds: float = 10.0,
    threads: int | None = None,
) -> list[Row]:
    """Time files in turns. Speed-ups are relative to the first row.

    targets: what runs each file, every one of them; None goes by the file's name.
    against: a full-precision twin, which becomes the first row.
    threads: for CPUs; None is the runtime's choice.

    Raises:
        UserError: nothing to time, a file that does not load, images of several sizes, a target that cannot run here.
    """
    entries = [(str(against), guess_target(Path(against)))] if against is not None else []
    entries += [(str(file), target) for file in files for target in targets or [guess_target(Path(file))]]
    entries = list(dict.fromkeys(entries))
    runners = {_name(*entry): load_engine(*entry, **_options(entry[1], threads)) for entry in entries}
    sizes = {runner.input_shape[1:] for runner in runners.values()}
    if len(sizes) > 1:
        raise UserError(f"the files take images of several sizes, {sorted(map(str, sizes))}: time them one by one")
    found = compare_latency(runners, batch_sizes, rounds=rounds, seconds=seconds)
    operations = measure_operations(threads)
    peaks = {_name(*entry): peak_memory_bytes(*entry, max(batch_sizes), threads) for entry in entries}
    rows = {_name(*entry): entry for entry in entries}
    return [
        Row(*rows[row.name], row, floor_of(*rows[row.name], row.batch_size, operations), peaks[row.name])
        for row in found
    ]


def floor_of(file: str | Path, target: str, batch: int, operations: dict[str, float]) -> Floor | None:
    """The floor of an ONNX file on this machine's CPU. operations: as `measure_operations` found them."""
    if target not in _CPUS:
        return None
    work = count_work(file, batch)
    rates = Rates(operations, measure_copies(work.total_bytes))
    return Floor(floor_ms(work, rates), work, rates)


def as_document(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows for programs: latencies in milliseconds for a whole batch, rates per second."""
    return {
        "schema": "fimaq-deploy/bench/1",
        "speedup_over": _name(rows[0].file, rows[0].target),
        "rows": [{**asdict(row), "latency": _latency(row.latency)} for row in rows],
    }


def _latency(latency: Latency) -> dict[str, Any]:
    return {key: value for key, value in asdict(latency).items() if key != "name"}


def _name(file: str, target: str) -> str:
    return f"{file} on {target}"


def _options(target: str, threads: int | None) -> dict[str, Any]:
    return {"threads": threads} if threads is not None and target in _CPUS else {}
