"""What learning costs the host: time, operator calls, launches and waits, per iteration and per block.

    python benchmarks/host_time.py
    python benchmarks/host_time.py --recipe w4a4 --repeat 9

Models are so small that arithmetic takes next to no time: what is left is what a host has to do for a model of any
size, and what a GPU waits for. Two lengths of learning tell an iteration from all else that a block costs (scale
search, Fisher measurements, records, passes at its boundary).

Three ways to look at it: the CPU's time; calls of operators, counted by torch's profiler on the CPU; and launches and
waits on the tests' second device, which records and replays steps as a GPU does. There an iteration's launches are
those that are not part of the recorded step. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import fimaq_deploy as fd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fixtures.second_device import metered, second_device

IMAGES, BATCH = 32, 4
# Iterations of the two lengths; a block's measurements are as many in both.
SHORT, LONG = 20, 70
UNITS = {"microseconds": "µs of the CPU", "operators": "operators", "launches": "launches", "waits": "waits"}


@dataclass(frozen=True)
class Cost:
    """Of one quantity, or of one run: what an iteration takes, and what a block takes beside its iterations."""

    model: str
    quantity: str
    iteration: float
    block: float


def models() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    shared: dict[str, Any] = {"num_classes": 5, "mlp_ratio": 2}
    vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, **shared)
    swin = SwinTransformer(
        img_size=32, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, **shared
    )
    return {"vit": (vit.eval(), torch.randn(IMAGES, 3, 16, 16)), "swin": (swin.eval(), torch.randn(IMAGES, 3, 32, 32))}


def recipe_of(name: str, iterations: int) -> Any:
    settings = {"iterations": iterations, "images": IMAGES, "batch_size": BATCH, "fisher_images": IMAGES, "patience": 0}
    edges = {"patch_embed": {"quantize": "always"}, "head": {"quantize": "always"}}
    return fd.Recipe.load(name).replace(reconstruction=settings, tuning={"iterations": 0}, **edges)


Run = Callable[[int], int]


def runner(model: nn.Module, images: Tensor, name: str, device: Any = "cpu") -> Run:
    """Quantizes for a number of iterations; returns how many blocks learned."""

    def run(iterations: int) -> int:
        return len(fd.quantize(model, images, recipe_of(name, iterations), "tensorrt", device=device).history)

    return run


def microseconds(run: Run, iterations: int, repeat: int) -> float:
    """The least of several times for a block."""
    times = []
    for _ in range(repeat):
        started = time.process_time()
        blocks = run(iterations)
        times.append(1e6 * (time.process_time() - started) / blocks)
    return min(times)


def operators(run: Run, iterations: int) -> float:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        blocks = run(iterations)
    return sum(event.count for event in found.key_averages() if "::" in event.key) / blocks


def split(model: str, quantity: str, short: float, long: float) -> Cost:
    iteration = (long - short) / (LONG - SHORT)
    return Cost(model, quantity, iteration, short - SHORT * iteration)


def on_the_cpu(model: str, run: Run, repeat: int) -> list[Cost]:
    run(2)
    times = [microseconds(run, iterations, repeat) for iterations in (SHORT, LONG)]
    counts = [operators(run, iterations) for iterations in (SHORT, LONG)]
    return [split(model, "microseconds", *times), split(model, "operators", *counts)]


def on_a_second_device(model: str, taken: tuple[nn.Module, Tensor], name: str) -> list[Cost]:
    launches, waits = [], []
    with second_device() as device:
        run = runner(taken[0].to(device), taken[1], name, device)
        for iterations in (SHORT, LONG):
            with metered() as meter:
                blocks = run(iterations)
            launches.append(meter.launches / blocks)
            waits.append(meter.syncs / blocks)
        taken[0].cpu()
    return [split(model, "launches", *launches), split(model, "waits", *waits)]


def measured(name: str, repeat: int) -> list[Cost]:
    found: list[Cost] = []
    for model, taken in models().items():
        found += on_the_cpu(model, runner(*taken, name), repeat)
        found += on_a_second_device(model, taken, name)
    return found


def table(costs: Sequence[Cost]) -> str:
    rows = [f"| {cost.model} | {UNITS[cost.quantity]} | {cost.iteration:.1f} | {cost.block:.0f} |" for cost in costs]
    return "\n".join(["| model | | an iteration | a block beside its iterations |", "|---|---|---:|---:|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="w3a3")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    costs = measured(arguments.recipe, arguments.repeat)
    print(table(costs))
    print(json.dumps({"recipe": arguments.recipe, "torch": torch.__version__, "costs": [asdict(c) for c in costs]}))


if __name__ == "__main__":
    main()
