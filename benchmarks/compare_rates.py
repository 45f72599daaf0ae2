"""How often `compare` flags what has not changed, and how often it catches what has.

    python benchmarks/compare_rates.py
    python benchmarks/compare_rates.py --model swin_digits --repetitions 20

Builds a shipped model twice with one recipe, and once with 2-bit weights and nothing learned. Then, again and again,
the latency of the second build is measured afresh, as it is and with an engine that is kept busy for longer, and judged
against the first build. Every build and every measurement is real. Prints how many of the
repetitions end in each exit code, and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import fimaq_deploy as fd
from fimaq_deploy.engines import Runner
from fimaq_deploy.engines.runner import Array
from fimaq_deploy.engines.runtimes import REFERENCE as CPU
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.pipeline.findings import with_speed
from fimaq_deploy.pipeline.speed import measure_latency
from fimaq_deploy.pipeline.variants import FP_ROW
from fimaq_deploy.report.comparison.judge import Build, compare, load_build
from fimaq_deploy.report.comparison.records import Thresholds

LIMITS = (5.0, 10.0, 20.0, 30.0)
WORSE = ("weights.bits=2", "reconstruction.iterations=0", "tuning.iterations=0")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        old, new, worse = (
            _build(options.model, Path(folder) / name, settings)
            for name, settings in (("old", ()), ("new", ()), ("worse", WORSE))
        )
        runners = {
            name: fd.load_engine(Path(new.name) / file, CPU)
            for name, file in ((FP_ROW, "model.fp32.onnx"), (CPU, "model.onnx"))
        }
        rows = [_accuracy_row(new, worse, old)]
        for title, extra in (("identical", 0.0), ("half slower", 0.5), ("twice as slow", 1.0)):
            measured = [_measured(new, runners, extra) for _ in range(options.repetitions)]
            rows += [_latency_row(title, measured, old, limit) for limit in LIMITS]
    for row in rows:
        print(
            f"{row['change']:<16}{row['threshold']:<20}{row['flagged']:>4} of {row['of']}, {row['doubtful']} doubtful"
        )
    print(json.dumps({"model": options.model, "rows": rows}))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_digits", choices=sorted(BUNDLED))
    parser.add_argument("--repetitions", type=int, default=20)
    return parser.parse_args(arguments)


def _build(model: str, out: Path, settings: Sequence[str]) -> Build:
    recipe = fd.Recipe.load("w8a8").with_settings(["reconstruction.iterations=20", "tuning.iterations=0", *settings])
    fd.build(model, recipe=recipe, targets=CPU, out=out)
    return load_build(out)


def _measured(build: Build, runners: dict[str, Runner], extra: float) -> Build:
    """The build with latencies of a new run, its quantized engine slowed."""
    changed = {**runners, CPU: _slowed(runners[CPU], extra)}
    rows = with_speed(build.report.rows, measure_latency(changed))
    return replace(build, report=build.report.model_copy(update={"rows": rows}))


def _slowed(runner: Runner, extra: float) -> Runner:
    """The engine, kept busy for so much of its own time more."""

    def run(images: Array) -> Array:
        started = time.perf_counter()
        logits = runner(images)
        until = time.perf_counter() + extra * (time.perf_counter() - started)
        while time.perf_counter() < until:
            pass
        return logits

    return Runner(runner.name, runner.input_shape, run)


def _accuracy_row(new: Build, worse: Build, old: Build) -> dict[str, object]:
    limits = Thresholds(max_drop=1, max_growth=1)
    assert compare(new, [old], Thresholds(max_drop=0, max_growth=0)).exit_code == 0
    return _row("2-bit weights", "--max-drop 1", [worse], lambda build: compare(build, [old], limits).exit_code, 0)


def _latency_row(title: str, measured: Sequence[Build], old: Build, limit: float) -> dict[str, object]:
    limits = Thresholds(max_slowdown=limit)
    doubts = sum(bool(compare(build, [old], limits).comparisons[0].doubts) for build in measured)
    return _row(
        title, f"--max-slowdown {limit:g}", measured, lambda build: compare(build, [old], limits).exit_code, doubts
    )


def _row(
    change: str, threshold: str, builds: Sequence[Build], code: Callable[[Build], int], doubts: int
) -> dict[str, object]:
    flagged = sum(code(build) == 1 for build in builds)
    return {"change": change, "threshold": threshold, "flagged": flagged, "of": len(builds), "doubtful": doubts}


if __name__ == "__main__":
    main()
