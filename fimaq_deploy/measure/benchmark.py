"""How fast any ONNX files or engines are here, beside what the machine allows at best.

All are timed in turns in one run (`fimaq_deploy.measure.latency`), each is run alone once for its peak memory, and
the work that an ONNX file holds is counted and divided by rates measured here (`fimaq_deploy.measure.roofline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fimaq_deploy.engines.options import THREADS
from fimaq_deploy.engines.runtimes import Runtime, find_runtime, guess_runtime
from fimaq_deploy.errors import UserError, within
from fimaq_deploy.measure.latency import Latency, compare_latency
from fimaq_deploy.measure.memory import peak_memory_bytes
from fimaq_deploy.measure.rates import measure_copies, measure_operations
from fimaq_deploy.measure.roofline import Rates, Work, count_work, floor_ms


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


class Benchmark(tuple[Row, ...]):
    """The rows of one run, by batch size; speed-ups are over the first."""

    def document(self) -> dict[str, Any]:
        """For programs: latencies in milliseconds for a whole batch, rates per second."""
        return {
            "schema": "fimaq-deploy/bench/1",
            "speedup_over": _name(self[0].file, self[0].target),
            "rows": [{**asdict(row), "latency": _latency(row.latency)} for row in self],
        }


def bench(
    files: Sequence[str | Path],
    *,
    targets: Sequence[str] | None = None,
    against: str | Path | None = None,
    batch_sizes: Sequence[int] = (1, 8),
    rounds: int = 50,
    seconds: float = 10.0,
    threads: int | None = None,
) -> Benchmark:
    """Time files in turns. Speed-ups are relative to the first row.

    targets: what runs each file, every one of them; None goes by the file's name.
    against: the yardstick, in full precision, which becomes the first row.
    threads: for the runtimes that take it; None is their choice.

    Raises:
        UserError: nothing to time, a file that does not load, images of several sizes, a target that cannot run here,
            or a number that cannot be meant.
    """
    _check_numbers(batch_sizes, rounds, seconds)
    entries = [(str(against), guess_runtime(Path(against)))] if against is not None else []
    entries += [(str(file), runtime) for file in files for runtime in _runtimes(Path(file), targets)]
    rows = {_name(file, runtime.name): (file, runtime) for file, runtime in entries}
    runners = {name: runtime.load(file, **_options(runtime, threads)) for name, (file, runtime) in rows.items()}
    sizes = {runner.input_shape[1:] for runner in runners.values()}
    if len(sizes) > 1:
        raise UserError(f"the files take images of several sizes, {sorted(map(str, sizes))}: time them one by one")
    found = compare_latency(runners, batch_sizes, rounds=rounds, seconds=seconds)
    operations = measure_operations(threads)
    peaks = {
        name: peak_memory_bytes(file, runtime.name, max(batch_sizes), threads) for name, (file, runtime) in rows.items()
    }
    return Benchmark(_row(*rows[latency.name], latency, operations, peaks[latency.name]) for latency in found)


def _runtimes(file: Path, targets: Sequence[str] | None) -> list[Runtime]:
    return [find_runtime(name) for name in targets] if targets else [guess_runtime(file)]


def _row(file: str, runtime: Runtime, latency: Latency, operations: dict[str, float], peak: int | None) -> Row:
    return Row(file, runtime.name, latency, floor_of(file, runtime.name, latency.batch_size, operations), peak)


def _check_numbers(batch_sizes: Sequence[int], rounds: int, seconds: float) -> None:
    if not batch_sizes:
        raise UserError("--batch: no batch size was given")
    for size in batch_sizes:
        within("--batch", size, 1, 4096)
    within("--rounds", rounds, 1, 1_000_000)
    within("--seconds", seconds, 1e-3, 86_400.0)


def floor_of(file: str | Path, target: str, batch: int, operations: dict[str, float]) -> Floor | None:
    """The floor of an ONNX file on this machine's CPU. operations: as `measure_operations` found them."""
    if not find_runtime(target).has_floor:
        return None
    work = count_work(file, batch)
    rates = Rates(operations, measure_copies(work.total_bytes))
    return Floor(floor_ms(work, rates), work, rates)


def _latency(latency: Latency) -> dict[str, Any]:
    return {key: value for key, value in asdict(latency).items() if key != "name"}


def _name(file: str, target: str) -> str:
    return f"{file} on {target}"


def _options(runtime: Runtime, threads: int | None) -> dict[str, Any]:
    return {THREADS.name: threads} if runtime.takes(THREADS) else {}
