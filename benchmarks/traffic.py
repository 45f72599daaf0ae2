"""What one learning step of a block moves through a GPU's memory, and in how many kernels, counted without a GPU.

    python benchmarks/traffic.py
    python benchmarks/traffic.py --models vit_b --precision bfloat16 --kernels 20
    python benchmarks/traffic.py --plain

The step runs on the tests' second device, which sees every operator as a GPU does; Triton's kernels are counted and not
run. A kernel moves each tensor that it takes or returns once; where rows are gathered, as many as it returns. Its time
is at least what its bytes take at --bandwidth, its products at --rate, and --launch. How near that comes is in
docs/log/2026-11-28-traffic.md. --plain counts the step without Triton.

The widest block of each model is told: its images are noise and its weights random, which changes no shape.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
GATHERS = {"index", "index_select", "_mix"}
# A view that torch does not call one, and what sets up the optimiser in its first step.
FREE = {"_unsafe_view", "zeros_like", "zero_"}


@dataclass(frozen=True)
class Kernel:
    """name: the operator's, or the Triton kernel's; bytes moved and operations of products."""

    name: str
    bytes: int
    flops: int = 0


def bytes_of(tensor: Tensor) -> int:
    """What there is of it in memory: an expanded axis is there once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


def kernel(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> Kernel:
    moved = sum(map(bytes_of, outputs)) * 2 if name in GATHERS else sum(map(bytes_of, [*inputs, *outputs]))
    if name not in PRODUCTS:
        return Kernel(name, moved)
    one, other = inputs[-2:] if name in ("mm", "bmm") else inputs[1:3]
    return Kernel(name, moved, 2 * one.numel() * other.shape[-1])


class Counter:
    """The kernels of a step of each block."""

    def __init__(self, fuses: bool) -> None:
        self.blocks: list[list[Kernel]] = []
        self.fuses, self.counts = fuses, False

    def saw(self, made: Kernel) -> None:
        if self.counts and made.name not in FREE:
            self.blocks[-1].append(made)

    @contextmanager
    def steps(self) -> Iterator[None]:
        from fixtures.second_device import NAME

        from fimaq_deploy.calibration.device import KINDS
        from fimaq_deploy.calibration.learning.gelus import gelus_handed_on
        from fimaq_deploy.calibration.learning.reconstruct import BlockLearner

        original = BlockLearner._iteration

        def iteration(learner: Any, steps: Any) -> Any:
            self.blocks.append([])
            kind, before = KINDS[NAME], [leaf.detach().clone() for leaf in learner._leaves]
            kind.fuses, self.counts = self.fuses, True
            try:
                with gelus_handed_on(learner.stage):
                    return original(learner, steps)
            finally:
                self.counts = kind.fuses = False
                # Nothing may follow from what was never computed.
                for leaf, value in zip(learner._leaves, before, strict=True):
                    leaf.data.copy_(value)

        BlockLearner._iteration = iteration  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            BlockLearner._iteration = original  # type: ignore[method-assign]

    @contextmanager
    def operators(self) -> Iterator[None]:
        """Those that the second device runs."""
        from fixtures import second_device
        from torch.utils._pytree import tree_leaves

        original = second_device._run

        def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            result, name = original(function, args, kwargs), function._schema.name
            composite = torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd")
            if self.counts and not composite and second_device._launches(function, name):
                inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
                outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
                self.saw(kernel(name.partition("::")[2], inputs, outputs))
            return result

        second_device._run = run
        try:
            yield
        finally:
            second_device._run = original

    @contextmanager
    def launches(self) -> Iterator[None]:
        """Of Triton's kernels."""
        from triton.runtime.jit import JITFunction

        def run(function: Any, *args: Any, **_: Any) -> None:
            tensors = [each for each in args if isinstance(each, Tensor)]
            # The last tensor that a kernel takes is what it gathers into.
            self.saw(kernel(function.__name__, tensors[:-1], tensors[-1:]))

        original = JITFunction.run
        JITFunction.run = run
        try:
            yield
        finally:
            JITFunction.run = original


def _vit(width: int, heads: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(patch_size=16, embed_dim=width, depth=1, num_heads=heads)


def _swin(width: int) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(embed_dim=width, depths=(2, 1, 1, 1), num_heads=tuple(width // 32 * 2**n for n in range(4)))


def _toy() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit_s": lambda: _vit(384, 6),
    "vit_b": lambda: _vit(768, 12),
    "swin_t": lambda: _swin(96),
    "swin_b": lambda: _swin(128),
    "toy": _toy,
}


def widest(model: nn.Module, args: argparse.Namespace) -> list[Kernel]:
    """The kernels of the step that moves most."""
    from fixtures.second_device import second_device

    import fimaq_deploy as fd
    from fimaq_deploy.models.families import family_of

    settings = ["reconstruction.iterations=1", "reconstruction.rank=1", "reconstruction.fisher_images=4"]
    settings += [f"reconstruction.{name}={args.batch}" for name in ("images", "batch_size")]
    settings += [f"reconstruction.precision={args.precision}", "scale_search.candidates=2", "tuning.iterations=0"]
    images, counter = torch.randn(args.batch, *family_of(model).image_shape(model)), Counter(not args.plain)
    with second_device(spare_bytes=2**40) as device, counter.steps(), counter.operators(), counter.launches():
        fd.quantize(
            model.to(device), images, fd.Recipe.load(args.recipe).with_settings(settings), "tensorrt", device=device
        )
    return max(counter.blocks, key=lambda block: sum(each.bytes for each in block))


def seconds(made: Kernel, args: argparse.Namespace) -> float:
    """What a kernel takes at least."""
    return max(made.bytes / (args.bandwidth * 1e12), made.flops / (args.rate * 1e12)) + args.launch * 1e-6


def table(name: str, kernels: list[Kernel], args: argparse.Namespace) -> Iterator[str]:
    found: dict[str, list[Kernel]] = defaultdict(list)
    for each in kernels:
        found[each.name].append(each)
    times = {kind: sum(seconds(each, args) for each in made) for kind, made in found.items()}
    moved, flops = (sum(getattr(each, what) for each in kernels) for what in ("bytes", "flops"))
    yield (
        f"{name}: {len(kernels)} kernels, {moved / 1e6:.0f} MB, {flops / 1e9:.1f} GFLOP of products, "
        f"at least {1e3 * sum(times.values()):.2f} ms"
    )
    for kind in sorted(times, key=times.__getitem__, reverse=True)[: args.kernels]:
        own = found[kind]
        yield f"  {kind:30} {len(own):4} {sum(k.bytes for k in own) / 1e6:9.1f} MB {1e6 * times[kind]:8.1f} µs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_s", "vit_b", "swin_t"], choices=list(MODELS))
    parser.add_argument("--recipe", default="w3a3")
    parser.add_argument("--precision", default="auto", help="auto (TF32) or bfloat16")
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--plain", action="store_true", help="torch's operators alone")
    parser.add_argument("--kernels", type=int, default=12, help="how many of them are listed")
    parser.add_argument("--bandwidth", type=float, default=3.0, help="TB/s")
    parser.add_argument("--rate", type=float, default=275.0, help="TFLOP/s of products")
    parser.add_argument("--launch", type=float, default=2.0, help="µs between kernels of a recorded step")
    args = parser.parse_args()
    if "TRITON_INTERPRET" in os.environ:
        parser.error("expected no TRITON_INTERPRET in the environment: the interpreter runs what is counted here")
    warnings.simplefilter("ignore")
    totals: dict[str, dict[str, float]] = {}
    for name in args.models:
        torch.manual_seed(0)
        kernels = widest(MODELS[name]().eval(), args)
        print("\n".join(table(name, kernels, args)), flush=True)
        totals[name] = {
            "kernels": len(kernels),
            "bytes": sum(each.bytes for each in kernels),
            "flops": sum(each.flops for each in kernels),
            "seconds": sum(seconds(each, args) for each in kernels),
        }
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
