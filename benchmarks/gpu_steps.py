"""What an iteration takes, by torch's operators and by kernels, and whether both learn the same: for gpu.py.

Each model is quantized twice each way, for so many iterations and for more: the difference is iterations alone, without
scale search, measurements and the passes between blocks.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import reconstruction
import torch
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.device import of
from fimaq_deploy.calibration.fused import trial

PRECISIONS = ("auto", "bfloat16")


@dataclass(frozen=True)
class Row:
    """milliseconds: of an iteration of one stage, mean of all. flops_per_second: of all stages, counted as three
    forward passes. loss: mean of the blocks' relative squared errors behind the longer run.
    """

    model: str
    recipe: str
    precision: str
    kernels: bool
    milliseconds: float
    flops_per_second: float
    loss: float


def measured(job: reconstruction.Job, iterations: Sequence[int]) -> list[Row]:
    """iterations: few and more. Where there are no kernels, rows without them alone."""
    device, model = torch.device(job.device), reconstruction.load(job)
    images = reconstruction.sources(job, model)[0].take(job.images)
    ways = (False, True) if of(device).fuses else (False,)
    return [_row(job, model, images, precision, on, iterations) for precision in PRECISIONS for on in ways]


def _row(
    job: reconstruction.Job, model: nn.Module, images: Tensor, precision: str, kernels: bool, iterations: Sequence[int]
) -> Row:
    few, more = iterations
    found = []
    with trial.kernels(torch.device(job.device), kernels):
        # The first run sets up libraries and compiles.
        for count in (few, few, more):
            settings = [*job.settings, f"reconstruction.precision={precision}", f"reconstruction.iterations={count}"]
            recipe = fd.Recipe.load(job.recipe).with_settings([*settings, "tuning.iterations=0"])
            found.append(fd.quantize(model, images, recipe, "tensorrt", seed=job.seed).history)
    each = {
        one.name: (max(other.seconds - one.seconds, 0.0) / (more - few), 1)
        for one, other in zip(*found[1:], strict=True)
    }
    return Row(
        job.model,
        job.recipe,
        precision,
        kernels,
        1e3 * statistics.mean(seconds for seconds, _ in each.values()),
        reconstruction.learning_rate(job, model, images[:1], each),
        statistics.mean(record.loss_after for record in found[-1]),
    )


def print_table(rows: Sequence[Row], rate: float) -> None:
    """rate: of products in TF32, FLOP/s."""
    print("\n| iteration | precision | kernels | ms | share of matrix rate | error behind |")
    print("|---|---|---|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row.model} {row.recipe} | {row.precision} | {'ours' if row.kernels else 'torch'} | "
            f"{row.milliseconds:.2f} | {100 * row.flops_per_second / rate:.1f} % | {row.loss:.4f} |"
        )
