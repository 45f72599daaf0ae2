"""Every way to run the model of a build, in the order of its table; each is compared with the one it should equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fimaq_deploy.engines.options import OPTIMISATIONS
from fimaq_deploy.engines.runner import Runner
from fimaq_deploy.engines.runtimes import REFERENCE, Runtime, find_runtime
from fimaq_deploy.pipeline.compiled import Engine
from fimaq_deploy.pipeline.exports import Files
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.verify.block_parity import AS_WRITTEN, QUANTIZED

ORIGINAL, FP_ROW, FAKE_QUANT = "pytorch-fp32", "onnx-fp32", "fake-quant"


@dataclass(frozen=True)
class LoadedFile:
    """A file that was loaded to be run, by the id of its row."""

    row: str
    file: Path
    runtime: Runtime
    runner: Runner


@dataclass(frozen=True)
class Variants:
    """loaded: those that are timed, the one that speed-ups are over first."""

    candidates: tuple[Candidate, ...]
    loaded: tuple[LoadedFile, ...]

    @property
    def runners(self) -> dict[str, Runner]:
        return {one.row: one.runner for one in self.loaded}

    @property
    def tapped(self) -> list[str]:
        """The targets that parity looks inside: not those for which another engine would have to be compiled."""
        quantized = [one.runtime for one in self.loaded if one.row == one.runtime.name]
        return [runtime.name for runtime in quantized if runtime.taps and runtime.compiler is None]


@dataclass(frozen=True)
class Sources:
    """What the files of a build come from. The first one is what everything is compared with.

    original: the model before anything was done to it. quantized: what the quantized file should equal, where it can be
    run without that; else the file is compared with the original.
    """

    original: Candidate
    quantized: Candidate | None = None


def of_module(model: nn.Module, quantized: Any, files: Files) -> Sources:
    """model: the original; quantized: the `QuantizedModel`."""
    return Sources(
        Candidate(ORIGINAL, "PyTorch FP32", model, original=True),
        Candidate(FAKE_QUANT, "PyTorch fake-quant", quantized, ORIGINAL, files.folder / QUANTIZED),
    )


def load_variants(sources: Sources, files: Files, engines: Sequence[Engine]) -> Variants:
    """Load all that run here."""
    runtime, origin = find_runtime(REFERENCE), sources.original.id
    unoptimised = runtime.load(files.onnx, **{OPTIMISATIONS.name: False})
    first, own = (_load(row, file, runtime) for row, file in ((FP_ROW, files.original), (REFERENCE, files.onnx)))
    further = [pair for one in engines if one.runtime.name != REFERENCE for pair in _of_engine(one, files, origin)]
    learned = [sources.quantized] if sources.quantized else []
    equal = learned[0].id if learned else origin
    return Variants(
        candidates=(
            sources.original,
            Candidate(FP_ROW, "ONNX Runtime FP32", first.runner, origin, first.file, original=True),
            *learned,
            Candidate(AS_WRITTEN, "ONNX unoptimised", unoptimised, equal, files.onnx),
            Candidate(REFERENCE, runtime.title, own.runner, AS_WRITTEN, own.file, deployed=True),
            *(candidate for candidate, _ in further),
        ),
        loaded=(first, own, *(loaded for _, loaded in further if loaded)),
    )


def _of_engine(engine: Engine, files: Files, origin: str) -> Iterator[tuple[Candidate, LoadedFile | None]]:
    """One target, behind the original in its own floats where it is measured beside that."""
    runtime = engine.runtime
    if files.has_yardstick(runtime):
        short = files.yardstick_short(runtime)
        row, title = f"{runtime.name}-{short}", f"{runtime.title} {short.upper()}"
        yield _variant(row, title, origin, files.yardstick(runtime), engine, original=True)
    yield _variant(runtime.name, runtime.title, AS_WRITTEN, runtime.file(files.folder), engine, original=False)


def _variant(
    row: str, title: str, compared_to: str, file: Path, engine: Engine, *, original: bool
) -> tuple[Candidate, LoadedFile | None]:
    loaded = None if engine.reason else _load(row, file, engine.runtime)
    candidate = Candidate(
        id=row,
        title=title,
        run=loaded.runner if loaded else None,
        compared_to=compared_to,
        file=None if engine.not_built else file,
        deployed=original == engine.ships_original,
        not_run=engine.reason,
        original=original,
    )
    return candidate, loaded


def _load(row: str, file: Path, runtime: Runtime) -> LoadedFile:
    return LoadedFile(row, file, runtime, runtime.load(file))
