"""What learning costs the host: time outside the compute, operator calls, launches and waits, a block and an iteration.

    python benchmarks/host_time.py
    python benchmarks/host_time.py --recipe w4a4 --repeat 9
    python benchmarks/host_time.py --beside ../before --repeat 25 --rows rows.jsonl

Models are so small that arithmetic takes next to no time: what is left is what a host has to do for a model of any
size, and what a GPU waits for. Only what happens between the start of the first block and the start of the head is
counted: preparing a model and looking at it afterwards is not a block's. An iteration is the median of all of them, and
what a block takes beside its iterations (scale search, Fisher measurements, records, passes at its boundary) is the
rest.

- `cpu`: the process's CPU time in µs, measured without a profiler.
- `compute`: what torch's profiler sees in the operators that a GPU would be busy with: products, convolutions,
  attention, softmax, activations, norms and decompositions, each with its gradient. The median of each operator and
  shape times its calls, so that other processes do not count.
- `arithmetic`: the same of every other operator on more than 2**14 numbers. There it is the numbers that take the time
  and not the call: scale search tries all candidates on all values of a tensor.
- `host`: cpu - compute. `calls`: host - arithmetic, what is left for Python, autograd and calls of operators.
- `operators`: their calls. `launches`, `waits`: on the tests' second device, which records and replays steps as a GPU
  does. There an iteration's launches are those that are not part of the recorded step.

--beside runs another checkout and this one in turns, each in a process of its own, and adds the median of the ratios of
the pairs, with the quartiles: other work on the machine meets both alike. Prints a table; --rows keeps each run as a
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

IMAGES, BATCH = 32, 4
TIMED = 40  # iterations
# Two lengths tell counts of an iteration from a block's, whose measurements are as many in both.
PROFILED, METERED = (5, 20), (20, 70)
MANY = 2**14
ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"
COMPUTE = {
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", ATTENTION, f"{ATTENTION}_backward"),
    *("aten::mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::thnn_conv2d", "aten::convolution_backward"),
    *("aten::_softmax", "aten::_softmax_backward_data", "aten::_log_softmax", "aten::_log_softmax_backward_data"),
    *("aten::native_layer_norm", "aten::native_layer_norm_backward", "aten::gelu", "aten::gelu_backward"),
    *("aten::_linalg_eigh", "aten::linalg_eigh"),
}
MODELS = ("vit", "swin")
QUANTITIES = ("cpu", "compute", "arithmetic", "host", "calls", "operators", "launches", "waits")
# model -> quantity -> (an iteration, a block beside its iterations)
Costs = dict[str, dict[str, tuple[float, float]]]


def models() -> dict[str, Any]:
    import torch
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    shared: dict[str, Any] = {"num_classes": 5, "mlp_ratio": 2}
    vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, **shared)
    swin = SwinTransformer(
        img_size=32, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, **shared
    )
    return {"vit": (vit.eval(), torch.randn(IMAGES, 3, 16, 16)), "swin": (swin.eval(), torch.randn(IMAGES, 3, 32, 32))}


def recipe_of(name: str, iterations: int) -> Any:
    import fimaq_deploy as fd

    settings = {"iterations": iterations, "images": IMAGES, "batch_size": BATCH, "fisher_images": IMAGES, "patience": 0}
    edges = {"patch_embed": {"quantize": "always"}, "head": {"quantize": "always"}}
    return fd.Recipe.load(name).replace(reconstruction=settings, tuning={"iterations": 0}, **edges)


@dataclass
class Runner:
    """Quantizes for a number of iterations. blocks: how many there were between patches and head."""

    taken: tuple[Any, Any]
    recipe: str
    device: Any = "cpu"
    blocks: int = 0

    def __call__(self, iterations: int, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """begin, end: called around those blocks."""
        import fimaq_deploy as fd

        def progress(done: int, steps: int, name: str) -> None:
            if done == 1:
                begin()
            elif done == steps - 1:
                self.blocks = steps - 2
                end()

        recipe = recipe_of(self.recipe, iterations)
        fd.quantize(*self.taken, recipe, "tensorrt", device=self.device, progress=progress)


@contextmanager
def stamped_iterations(stamps: list[list[float]]) -> Iterator[None]:
    """Note the CPU time at which each iteration begins, a list for each block."""
    from fimaq_deploy.calibration.learning.convergence import Schedule

    original = Schedule.__iter__

    def stamped(schedule: Any) -> Iterator[int]:
        stamps.append([])
        for iteration in original(schedule):
            stamps[-1].append(time.process_time())
            yield iteration

    Schedule.__iter__ = stamped  # type: ignore[method-assign]
    try:
        yield
    finally:
        Schedule.__iter__ = original  # type: ignore[method-assign]


def cpu(run: Runner) -> tuple[float, float]:
    """In µs, of an iteration and of a block beside its iterations."""
    at: list[float] = []
    stamps: list[list[float]] = []
    with stamped_iterations(stamps):
        run(TIMED, *[lambda: at.append(time.process_time())] * 2)
    own = stamps[1 : 1 + run.blocks]
    # An iteration that begins with a measurement counts as one more iteration, and what it takes longer as the block's.
    refreshes = recipe_of(run.recipe, TIMED).reconstruction.rank
    plain = [
        later - earlier
        for block in own
        for number, (earlier, later) in enumerate(pairwise(block))
        if number * refreshes % TIMED >= refreshes
    ]
    iteration = median(plain)
    rest = at[1] - at[0] - sum(plain) - (run.blocks * TIMED - len(plain)) * iteration
    return 1e6 * iteration, 1e6 * rest / run.blocks


def profiled(run: Runner) -> dict[str, tuple[float, float]]:
    """Calls of operators, and µs in those that compute and in those on many numbers."""
    short, long = (times_of_operators(run, iterations) for iterations in PROFILED)
    found: dict[str, tuple[float, float]] = dict.fromkeys(("compute", "arithmetic", "operators"), (0.0, 0.0))
    for which in {**short, **long}:
        one, other = short.get(which, []), long.get(which, [])
        counts = split(PROFILED, len(one) / run.blocks, len(other) / run.blocks)
        found["operators"] = _sum(found["operators"], counts)
        if which[0] in found:
            taken = median([*one, *other])
            found[which[0]] = _sum(found[which[0]], (taken * counts[0], taken * counts[1]))
    return found


def times_of_operators(run: Runner, iterations: int) -> dict[tuple[str, str], list[float]]:
    """Self times in µs of each operator and shape."""
    from torch.profiler import ProfilerActivity, profile

    found = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    run(iterations, found.start, found.stop)
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in found.events() or ():
        if "::" in event.name:
            kinds[_kind(event)].append(event.self_cpu_time_total)
    return kinds


def _kind(event: Any) -> tuple[str, str]:
    """Of an operator's call; and which one it is, on what shapes."""
    which = f"{event.name} {event.input_shapes}"
    if event.name in COMPUTE:
        return "compute", which
    return "arithmetic" if max(map(_numbers, event.input_shapes), default=0) > MANY else "call", which


def _numbers(shape: Any) -> int:
    """Of a tensor, or of the largest in a list of them."""
    if any(isinstance(each, list) for each in shape):
        return max(map(_numbers, shape), default=0)
    product = 1
    for each in shape:
        product *= each
    return product if shape else 0


def split(lengths: tuple[int, int], short: float, long: float) -> tuple[float, float]:
    iteration = (long - short) / (lengths[1] - lengths[0])
    return iteration, short - lengths[0] * iteration


def _sum(one: tuple[float, float], other: tuple[float, float], sign: int = 1) -> tuple[float, float]:
    return one[0] + sign * other[0], one[1] + sign * other[1]


def on_a_second_device(taken: tuple[Any, Any], recipe: str) -> dict[str, tuple[float, float]]:
    from fixtures.second_device import metered, second_device

    seen: dict[str, list[float]] = {"launches": [], "waits": []}
    with second_device() as device, metered() as meter:
        run = Runner((taken[0].to(device), taken[1]), recipe, device)
        for iterations in METERED:
            at: list[tuple[int, int]] = []
            run(iterations, *[lambda at=at: at.append((meter.launches, meter.syncs))] * 2)
            for quantity, before, after in zip(seen, *at, strict=True):
                seen[quantity].append((after - before) / run.blocks)
        taken[0].cpu()
    return {quantity: split(METERED, short, long) for quantity, (short, long) in seen.items()}


def serve(recipe: str) -> None:
    """Measure the package that is imported: a line of JSON for each line that asks for a model's `all` or `cpu`."""
    import torch

    import fimaq_deploy

    sys.path.insert(0, str(Path(fimaq_deploy.__file__).parents[1] / "tests"))
    from fixtures.second_device import second_device

    with second_device():
        pass  # a device has to be known before the first gradient
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known = models()
    for line in sys.stdin:
        model, what = line.split()
        run = Runner(known[model], recipe)
        found: Any = cpu(run)
        if what == "all":
            found = profiled(run) | on_a_second_device(known[model], recipe)
        print(json.dumps(found), flush=True)


class Checkout:
    """Measures itself in a process of its own."""

    def __init__(self, tree: Path, recipe: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--serve", "--recipe", recipe]
        self._process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, model: str, what: str) -> Any:
        process = self._process
        assert process.stdin and process.stdout
        print(model, what, file=process.stdin, flush=True)
        while not (line := process.stdout.readline()).startswith(("{", "[")):
            if not line:
                raise SystemExit("a measurement failed: its message stands above")
        return json.loads(line)


def measured(sides: dict[str, Checkout], repeat: int, keep: Callable[[str, str, Any], None]) -> dict[str, list[Costs]]:
    """Runs of each side, in turns."""
    runs: dict[str, list[Costs]] = {side: [{} for _ in range(repeat)] for side in sides}
    for model in MODELS:
        fixed = {side: checkout.ask(model, "all") for side, checkout in sides.items()}
        for number in range(repeat):
            for side, checkout in sides.items():
                found = dict(fixed[side], cpu=checkout.ask(model, "cpu"))
                found["host"] = _sum(found["cpu"], found["compute"], -1)
                found["calls"] = _sum(found["host"], found["arithmetic"], -1)
                keep(side, model, found)
                runs[side][number][model] = found
    return runs


def medians(runs: Sequence[Costs]) -> Costs:
    return {
        model: {
            quantity: (median(run[model][quantity][0] for run in runs), median(run[model][quantity][1] for run in runs))
            for quantity in QUANTITIES
        }
        for model in runs[0]
    }


def ratios(before: Sequence[Costs], after: Sequence[Costs], model: str, quantity: str) -> list[str]:
    """The median of the pairs' ratios for an iteration and for a block, with the quartiles."""

    def said(found: Iterable[float]) -> str:
        ordered = sorted(found)
        low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
        return f"{median(ordered):.2f} ({low:.2f} to {high:.2f})"

    pairs = [(one[model][quantity], other[model][quantity]) for one, other in zip(before, after, strict=True)]
    return [said(other[n] / one[n] if one[n] else float("nan") for one, other in pairs) for n in (0, 1)]


def table(before: Sequence[Costs], after: Sequence[Costs]) -> str:
    """before: may be empty."""
    columns = ["an iteration", "a block beside its iterations"]
    head = [f"{column}{', ' + word if before else ''}" for column in columns for word in _words(before)]
    rows = [["model", "", *head], ["---", "---", *["---:"] * len(head)]]
    sides = [medians(runs) for runs in (before, after) if runs]
    for model in sides[0]:
        for quantity in QUANTITIES:
            digits = 2 if quantity == "waits" else 1 if quantity == "launches" else 0
            row = [model, quantity]
            found = ratios(before, after, model, quantity) if before else ["", ""]
            for n in (0, 1):
                row += [f"{side[model][quantity][n]:,.{digits}f}" for side in sides]
                row += [found[n]] if before else []
            rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _words(before: Sequence[Costs]) -> list[str]:
    return ["before", "after", "ratio"] if before else [""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="w3a3")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="a checkout of the state before")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.recipe)
        return

    def keep(side: str, model: str, found: Any) -> None:
        if arguments.rows:
            with arguments.rows.open("a") as rows:
                rows.write(json.dumps({"side": side, "recipe": arguments.recipe, "model": model, **found}) + "\n")

    trees = {"before": arguments.beside} if arguments.beside else {}
    trees["after"] = Path(__file__).resolve().parents[1]
    sides = {side: Checkout(tree, arguments.recipe) for side, tree in trees.items()}
    runs = measured(sides, arguments.repeat, keep)
    print(table(runs.get("before", []), runs["after"]))


if __name__ == "__main__":
    main()
