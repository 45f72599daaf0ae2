"""Formats beside each other: what they keep of the accuracy, learned or not, and what they compile to.

    python benchmarks/formats.py accuracy --models vit_shapes swin_shapes --seeds 0 1 2
    python benchmarks/formats.py accuracy --models dinov2 --weights dino.safetensors --tests 128 --images 32
    python benchmarks/formats.py accuracy --runs "w2a8, learned" "w3a8, learned" "w4a8, learned"
    python benchmarks/formats.py plans --sms 89 120

`accuracy`: top-1, agreement with full precision and the KL divergence of the classes, of the fake-quant model on test
images. Max calibration takes the extremes as they are and rounds to nearest. `dinov2`, a state dict as
`benchmarks/dinov2.py` has it, on the pictures of `benchmarks/photographs.py`: the cosine of the features and what
retrieval keeps of full precision's order, instead of classes.

`plans`: the kernels of TensorRT-RTX, compiled without a GPU; random weights, no search, two blocks of each ViT.
Prints a table and one JSON line. With --cells FILE each row is added to it as it ends; those in it are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from cells import keep, kept
from timm import create_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.export import export_fp_onnx, export_onnx
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log, kernel_counts
from fimaq_deploy.verify.layer_audit import builder_log

TARGET = "tensorrt-rtx"
MAX = ("scale_search.candidates=1", "reconstruction.iterations=0", "tuning.iterations=0")
NONE = ("reconstruction.iterations=0", "tuning.iterations=0")
FISHER = ("reconstruction.loss=dplr", "reconstruction.iterations=100")
HOW = {"learned": (), "max calibration": MAX, "scales searched": NONE, "Fisher 100": FISHER}
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    f"{preset}, {how}": (preset, settings)
    for how, settings in HOW.items()
    for preset in ("fp8", "w8a8", "w8a8-fp8attention", "nvfp4")
}
# Few bits for weights alone: the recipe of w4a8 but for the bits.
RUNS |= {
    f"w{bits}a8, {how}": ("w4a8", (f"weights.bits={bits}", *HOW[how]))
    for bits in (4, 3, 2)
    for how in ("max calibration", "learned")
}


@dataclass(frozen=True)
class Result:
    """One run. figures: by name; the larger the better, but for kl and error."""

    model: str
    run: str
    seed: int
    figures: dict[str, float]
    seconds: float


@torch.inference_mode()
def outputs(model: nn.Module, images: Tensor, batch: int = 50) -> Tensor:
    return torch.cat([model(part).float() for part in images.split(batch)])


def of_classes(found: Tensor, reference: Tensor, labels: Tensor) -> dict[str, float]:
    kl = F.kl_div(found.log_softmax(1), reference.log_softmax(1), log_target=True, reduction="batchmean")
    same = found.argmax(1) == reference.argmax(1)
    return {
        "top-1 %": 100 * (found.argmax(1) == labels).float().mean().item(),
        "agree %": 100 * same.float().mean().item(),
        "kl": kl.item(),
    }


def of_features(found: Tensor, reference: Tensor) -> dict[str, float]:
    """recall@1: whether the nearest other image stays the same; overlap@10: how many of the ten nearest do."""
    near = [F.normalize(each) @ F.normalize(each).T - 2 * torch.eye(len(each)) for each in (found, reference)]
    most = min(10, len(found))
    ten = [torch.zeros_like(each).scatter(1, each.topk(most).indices, 1) for each in near]
    return {
        "cosine": F.cosine_similarity(found, reference).mean().item(),
        "recall@1 %": 100 * (near[0].argmax(1) == near[1].argmax(1)).float().mean().item(),
        "overlap@10 %": 100 / most * (ten[0] * ten[1]).sum(1).mean().item(),
        "error": ((found - reference).square().sum() / reference.square().sum()).item(),
    }


def task_of(name: str, args: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor, Tensor | None]:
    """A model, its calibration and test images, and labels where it has classes."""
    if name in BUNDLED:
        task = BUNDLED[name].task
        tests = [*bundled_images(task, "test", args.tests).batches(args.tests)]
        images = torch.cat([one.images for one in tests])
        labels = torch.cat([one.labels for one in tests if one.labels is not None])
        return fd.load_model(name), bundled_images(task, "calibration", args.images).take(args.images), images, labels
    return *on_photographs(args.weights, args.images, args.tests), None


def dinov2(weights: Path) -> nn.Module:
    """A DINOv2 ViT-S/14 with the numbers of a file."""
    from safetensors.torch import load_file

    encoder = create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    encoder.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    return encoder


def on_photographs(weights: Path, images: int, tests: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A DINOv2 ViT-S/14, and as many photographs to calibrate and to test with."""
    from photographs import normalized, photographs

    return dinov2(weights), normalized(photographs("calibration", images)), normalized(photographs("test", tests))


def accuracy(args: argparse.Namespace) -> Iterator[Result]:
    for name in args.models:
        model, calibration, tests, labels = task_of(name, args)
        reference = outputs(model, tests)
        for run, (preset, settings) in RUNS.items():
            if args.runs and run not in args.runs:
                continue
            learns = not any(one == "reconstruction.iterations=0" for one in settings)
            for seed in args.seeds if learns else args.seeds[:1]:
                if (name, run, seed) in args.done:
                    continue
                recipe = fd.Recipe.load(preset).with_settings([*settings, *args.set])
                started = time.process_time()
                quantized = fd.quantize(model, calibration, recipe, TARGET, seed=seed)
                seconds, found = time.process_time() - started, outputs(quantized, tests)
                figures = of_features(found, reference) if labels is None else of_classes(found, reference, labels)
                yield Result(name, run, seed, figures, seconds)


def print_accuracy(results: list[Result]) -> None:
    """Means over seeds, with the spread where there are several."""
    for model in dict.fromkeys(result.model for result in results):
        own = [result for result in results if result.model == model]
        names = list(own[0].figures)
        print(f"\n| {model} | {' | '.join(names)} | CPU s |\n|---|{'---:|' * (len(names) + 1)}")
        for run in dict.fromkeys(result.run for result in own):
            rows = [result for result in own if result.run == run]
            cells = [_mean([row.figures[name] for row in rows]) for name in names]
            print(f"| {run} | {' | '.join(cells)} | {sum(row.seconds for row in rows) / len(rows):.0f} |")


def _mean(values: list[float]) -> str:
    mean = sum(values) / len(values)
    spread = f" ± {(max(values) - min(values)) / 2:.2g}" if len(values) > 1 else ""
    return f"{mean:.5g}{spread}"


def vit(size: int, patch: int, width: int, heads: int, **changes: Any) -> VisionTransformer:
    sizes = {"img_size": size, "patch_size": patch, "embed_dim": width, "num_heads": heads, "depth": 2}
    return VisionTransformer(**{**sizes, **changes}).eval()


PLANNED: dict[str, Callable[[], nn.Module]] = {
    "deit_s, 2 blocks": lambda: vit(224, 16, 384, 6),
    "swin_t": lambda: create_model("swin_tiny_patch4_window7_224").eval(),
    "head 72 × 729 tokens": lambda: vit(378, 14, 1152, 16, class_token=False, global_pool="avg"),
    "1,025 tokens": lambda: vit(512, 16, 384, 6),
}


@dataclass(frozen=True)
class Plan:
    """One engine. kernels: in all of its blocks, and of the FP16 model. lost: products not as the file has them."""

    model: str
    recipe: str
    sm: str
    gemms: dict[str, int]
    attention: dict[str, int]
    kernels: int
    of_floats: int
    lost: int
    dequantized: int


def read_plan(model: str, recipe: str, sm: int, blocks: tuple[BlockPlan, ...], floats: dict[str, int]) -> Plan:
    inside = [block for block in blocks if "blocks" in block.name]
    types = {name: sum(getattr(block, f"{name}_gemms") for block in blocks) for name in ("int8", "fp8", "fp4")}
    left = {"float": sum(len(block.float_gemms) for block in blocks)}
    return Plan(
        model=model,
        recipe=recipe,
        sm=f"{sm // 10}.{sm % 10}",
        gemms={name: count for name, count in {**types, **left}.items() if count},
        attention=dict(Counter(block.attention for block in inside if block.attention)),
        kernels=sum(block.kernels for block in inside),
        of_floats=sum(floats[block.name] for block in inside),
        lost=sum(len(block.lost_gemms) for block in blocks),
        dequantized=sum(block.dequantized_weights for block in blocks),
    )


def plans(args: argparse.Namespace) -> Iterator[Plan]:
    runtime = find_runtime(TARGET)
    for name in args.models:
        torch.manual_seed(0)
        model = PLANNED[name]()
        images = torch.randn(2, *image_shape(model), generator=torch.Generator().manual_seed(0))
        with TemporaryDirectory() as folder:
            original = export_fp_onnx(model, Path(folder) / "original.onnx", target=TARGET)
            path = Path(folder) / "model.onnx"

            def compiled(file: Path, sm: int) -> tuple[BlockPlan, ...]:
                return audit_log(builder_log(file, runtime, [(sm // 10, sm % 10)]), read_structure(file))

            floats = {sm: kernel_counts(compiled(original, sm)) for sm in args.sms}
            for preset in args.recipes:
                recipe = fd.Recipe.load(preset).with_settings([*MAX, "reconstruction.images=2"])
                for sm in args.sms:
                    if (name, preset, sm) in args.done or (preset == "nvfp4" and sm < 100):
                        continue
                    export_onnx(fd.quantize(model, images, recipe, TARGET, sm=sm), path, target=TARGET)
                    yield read_plan(name, preset, sm, compiled(path, sm), floats[sm])


def print_plans(found: list[Plan]) -> None:
    print("\n| model | recipe | for | GEMMs | attention | kernels, FP16's | lost | weights dequantized |")
    print("|---|---|---|---|---|---:|---:|---:|")
    for one in found:
        gemms, attention = (
            ", ".join(f"{count} {name}" for name, count in each.items()) for each in (one.gemms, one.attention)
        )
        counts = f"{one.kernels}, {one.of_floats} | {one.lost} | {one.dequantized}"
        print(f"| {one.model} | {one.recipe} | {one.sm} | {gemms} | {attention} | {counts} |")


KINDS: dict[str, type[Result] | type[Plan]] = {"accuracy": Result, "plans": Plan}


def earlier(path: Path | None, what: str) -> list[Result | Plan]:
    """The rows that another run has written."""
    return [KINDS[what](**cell) for cell in kept(path)]


def key(row: Result | Plan) -> tuple[str, str, int]:
    if isinstance(row, Plan):
        return row.model, row.recipe, int(row.sm.replace(".", ""))
    return row.model, row.run, row.seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(required=True, dest="what")
    judged = what.add_parser("accuracy")
    judged.add_argument("--models", nargs="+", default=["vit_shapes", "swin_shapes"])
    judged.add_argument("--runs", nargs="+", help="by their names in the table; default: all")
    judged.add_argument("--set", nargs="+", default=[], help="recipe fields of every run")
    judged.add_argument("--images", type=int, default=256, help="calibration images")
    judged.add_argument("--tests", type=int, default=2000, help="test images")
    judged.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    judged.add_argument("--weights", type=Path, help="of dinov2")
    compiled = what.add_parser("plans")
    compiled.add_argument("--models", nargs="+", default=list(PLANNED), choices=list(PLANNED))
    compiled.add_argument("--recipes", nargs="+", default=["w8a8", "fp8", "w8a8-fp8attention"])
    compiled.add_argument("--sms", type=int, nargs="+", default=[89])
    for one in (judged, compiled):
        one.add_argument("--cells", type=Path, help="rows, one a line: read first, and added to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = earlier(args.cells, args.what)
    args.done = {key(row) for row in found}
    for row in accuracy(args) if args.what == "accuracy" else plans(args):
        found.append(row)
        print(asdict(row), flush=True)
        keep(args.cells, asdict(row))
    (print_accuracy if args.what == "accuracy" else print_plans)(found)  # type: ignore[arg-type]
    print(json.dumps([asdict(one) for one in found]))


if __name__ == "__main__":
    main()
