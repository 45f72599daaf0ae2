"""The images that a build kept, run again here and judged by what the build measured.

Two runtimes never compute the same floats. So an output is judged by how far the ways to run the model were from each
other in the build: it may be twice as far from the build's as those were, and at least `FLOOR`. Distance is the root
mean square of the difference of one image's output over the standard deviation of that output in the build; of one
that is a single number throughout, such as of a ruined model, over that number. Where all ways of the build gave an
image the same class, it has to have that class here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from fimaq_deploy.contract import Contract
from fimaq_deploy.engines.options import THREADS
from fimaq_deploy.engines.runtimes import Runtime
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.latency import compare_latency
from fimaq_deploy.runtime.artifact import Artifact
from fimaq_deploy.runtime.replay import REPLAY, Array, Replay

FLOOR = 0.02
AS_WRITTEN = "onnx-reference"  # the row of the file computed node by node

_ROUNDS, _SECONDS = 20, 3.0
_ROUNDING = 1e-6  # of an output's largest number: float32 tells no more apart


@dataclass(frozen=True)
class Replayed:
    """One target on the stored images. distance, allowed: the largest of an image, and what it may be.

    beside: the row of the build that it is compared with. same: images whose class is the build's; None without any.
    latency_ms, built_ms: the medians of one image, here and on the build's machine.
    """

    target: str
    file: str
    beside: str
    images: int
    distance: float
    allowed: float
    same: int | None
    latency_ms: float | None = None
    built_ms: float | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def run_again(
    artifact: Artifact, replay: Replay, runtime: Runtime, file: Path, threads: int | None, time: bool
) -> Replayed:
    """One file of the build on one target. threads: of a CPU. time: measure the latency too.

    Raises:
        UserError: it cannot be run here, returns other outputs, or there is nothing to compare it with.
    """
    runner = runtime.load(file, **({THREADS.name: threads} if runtime.takes(THREADS) else {}))
    beside = runtime.name if runtime.name in replay.rows else AS_WRITTEN
    if beside not in replay.rows:
        raise UserError(f"{REPLAY} has no outputs to compare {runtime.title} with: build again")
    outputs, built = runner.outputs(replay.images), replay.rows[beside]
    if [one.shape for one in outputs.values()] != [one.shape for one in built.values()]:
        raise UserError(f"{runtime.title} returns other outputs than the build: {', '.join(outputs)}")
    pairs = list(zip(outputs.values(), built.values(), strict=True))
    distances = [max(_distances(own, theirs)) for own, theirs in pairs]
    spreads = _spreads(replay)
    allowed = [max(FLOOR, 2 * spread) for spread in spreads]
    shares = [one / limit for one, limit in zip(distances, allowed, strict=True)]
    worst = int(np.argmax(np.nan_to_num(shares, nan=np.inf)))
    same = _same_classes(artifact.contract, replay, list(outputs.values()), list(built.values()))
    ms = compare_latency({"": runner}, (1,), rounds=_ROUNDS, seconds=_SECONDS, images=replay.images) if time else []
    problems = _judged(runtime, beside, distances[worst], allowed[worst], same, len(replay.images))
    return Replayed(
        target=runtime.name,
        file=file.name,
        beside=beside,
        images=len(replay.images),
        distance=float(distances[worst]),
        allowed=float(allowed[worst]),
        same=None if same is None else same[0],
        latency_ms=ms[0].p50_ms if ms else None,
        built_ms=artifact.latency_ms(runtime.name),
        problems=tuple(problems),
        notes=tuple(_constant(built, beside)),
    )


def _constant(built: Mapping[str, Array], beside: str) -> Iterator[str]:
    """Outputs of which equality says next to nothing."""
    for name, found in built.items():
        if found.size > 1 and not _varies(found):
            yield (
                f"output {name} of {beside} is {float(found.reshape(-1)[0]):.3g} throughout, on every image of the "
                "build: that it is the same here says little; its model may be ruined"
            )


def _judged(
    runtime: Runtime, beside: str, distance: float, allowed: float, same: tuple[int, int] | None, images: int
) -> Iterator[str]:
    hint = "the engine or its version computes differently; `fimaq-deploy parity` finds the block where torch is there"
    if not distance <= allowed:  # also where it is NaN
        yield (
            f"{runtime.title} does not compute what the build measured as {beside}: an output is {distance:.3g} away, "
            f"at most {allowed:.3g} is allowed; {hint}"
        )
    if same is not None and same[1]:
        yield f"{runtime.title} gives {same[1]} of {images} images another class than every way of the build; {hint}"


def _distances(own: Array, theirs: Array) -> Array:
    """Of each image: the root mean square of the difference over the output's standard deviation."""
    difference = (own.astype(np.float64) - theirs.astype(np.float64)).reshape(len(theirs), -1)
    return np.sqrt((difference**2).mean(axis=1)) / _scale(theirs)


def _scale(theirs: Array) -> float:
    """What a difference is large or small beside."""
    found = theirs.astype(np.float64)
    return float(found.std()) if _varies(theirs) else float(np.abs(found).mean()) or 1.0


def _varies(theirs: Array) -> bool:
    """Whether an output has more than one number, but for rounding. What is not finite is told elsewhere."""
    found = theirs.astype(np.float64)
    return not np.isfinite(found).all() or bool(found.std() > _ROUNDING * np.abs(found).max(initial=0.0))


def _spreads(replay: Replay) -> list[float]:
    """For each output, how far two ways of the build were from each other at most, on one of the images."""
    rows = [list(named.values()) for named in replay.rows.values()]
    columns = list(zip(*rows, strict=False))
    return [max((float(_distances(a, b).max()) for a, b in combinations(ways, 2)), default=0.0) for ways in columns]


def _same_classes(contract: Contract, replay: Replay, own: list[Array], built: list[Array]) -> tuple[int, int] | None:
    """How many images have the build's class, and how many another one although all its ways agreed."""
    place = next((number for number, one in enumerate(contract.outputs) if one.kind == "classes"), None)
    if place is None or own[place].ndim != 2:
        return None
    here, there = own[place].argmax(axis=1), built[place].argmax(axis=1)
    ways = np.stack([list(named.values())[place].argmax(axis=1) for named in replay.rows.values()])
    agreed = (ways == ways[0]).all(axis=0)
    return int((here == there).sum()), int(((here != there) & agreed).sum())
