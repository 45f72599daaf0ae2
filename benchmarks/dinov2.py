"""A real encoder on real images: DINOv2 ViT-S/14 with a linear classifier for Fashion-MNIST, quantized by many recipes.

    python benchmarks/dinov2.py --weights dino.safetensors --images /usr/share/datasets/fashion-mnist --device cuda
    python benchmarks/dinov2.py ... --runs w3a3 "w3a3 reconstruction.iterations=1000" "w4a4 rewrites.rotation=true"

--weights: a timm state dict of `vit_small_patch14_dinov2` for 224 pixels. --images: the four files of the data set as
it is distributed (Debian: dataset-fashion-mnist). The classifier, logistic regression on the class token, is fitted
here on the first training images; calibration takes those that follow. Each run is a preset and fields to replace.

Prints a table and one JSON line: top-1, cosine of the features and recall@1 (whether the nearest other test image stays
the same) against full precision, seconds, CPU seconds and peak memory. --json has the same document, written whole
after each run. A run that fails is told and named in it, and does not stop the others; exit code 1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import fimaq_deploy as fd
from fimaq_deploy.files import write_whole

NAME, SIZE, CLASSES = "vit_small_patch14_dinov2", 224, 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Every tensor of the products at 3 bits, as the papers have it: attention weights, patches and head too.
EVERY_TENSOR = (
    "attention.quantize=always",
    "attention.softmax_bits=3",
    *(
        f"{edge}.{field}"
        for edge in ("patch_embed", "head")
        for field in ("quantize=always", "weight_bits=3", "activation_bits=3")
    ),
)
RUNS = [
    "w8a8",
    "w6a6",
    "w4a8",
    "w4a4",
    "w3a3",
    "w3a3 reconstruction.iterations=1000",
    "w3a3 reconstruction.loss=mse",
    "w3a3 everything",
    "w3a3 everything reconstruction.iterations=1000",
]
PROBE_IMAGES = 10_000


@dataclass(frozen=True)
class Result:
    run: str
    seed: int
    top1: float
    cosine: float
    recall: float
    seconds: float
    cpu_seconds: float
    peak_mib: float
    iterations: int


def read_idx(path: Path) -> Tensor:
    """The array of one file of the data set: a header of dimensions, then bytes."""
    data = gzip.decompress(path.read_bytes())
    dimensions = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dimensions).copy())


def read_set(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Images and labels."""
    images, labels = (read_idx(folder / f"{name}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return images, labels


def prepared(images: Tensor, device: torch.device) -> Tensor:
    """(N, 28, 28) bytes to (N, 3, 224, 224) as the encoder takes them."""
    grey = images.to(device).float()[:, None] / 255
    large = F.interpolate(grey, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return (large - mean) / std


@torch.inference_mode()
def answers(model: nn.Module, images: Tensor, device: torch.device, batch: int = 256) -> Tensor:
    return torch.cat([model(prepared(part, device)).float() for part in images.split(batch)])


def with_classifier(encoder: Any, images: Tensor, labels: Tensor, device: torch.device) -> None:
    """Fit the head on the features."""
    features = answers(encoder, images, device).clone()
    mean, std = features.mean(0), features.std(0)
    head = nn.Linear(features.shape[1], CLASSES, device=device)
    nn.init.zeros_(head.weight)
    scaled, labels = (features - mean) / std, labels.to(device)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(head(scaled), labels) + 1e-4 * head.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():  # the standardisation becomes part of the head
        head.weight.div_(std)
        head.bias.sub_(head.weight @ mean)
    encoder.head, encoder.num_classes = head.requires_grad_(False), CLASSES


def nearest(features: Tensor) -> Tensor:
    """For each row the other row of largest cosine."""
    unit = F.normalize(features, dim=1)
    similarity = unit @ unit.T
    return similarity.fill_diagonal_(-2).argmax(1)


def judged(model: nn.Module, tests: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits, and the features in front of the head."""
    seen: list[Tensor] = []
    head = next(module for name, module in model.named_modules() if name.split(".")[-1] == "head")
    hook = head.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach().float()))
    logits = answers(model, tests, device)
    hook.remove()
    return logits, torch.cat(seen).flatten(1)


def recipe_of(run: str) -> fd.Recipe:
    preset, *settings = run.split()
    fields = [field for each in settings for field in (EVERY_TENSOR if each == "everything" else (each,))]
    return fd.Recipe.load(preset).with_settings(fields)


def measured(
    run: str, seed: int, model: nn.Module, images: Tensor, target: str
) -> tuple[fd.QuantizedModel, dict[str, float]]:
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started, started_cpu = time.perf_counter(), time.process_time()
    quantized = fd.quantize(model, images, recipe_of(run), target, seed=seed)
    if on_gpu:
        torch.cuda.synchronize()
    cost = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - started_cpu,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else float("nan"),
        "iterations": sum(record.iterations for record in quantized.history),
    }
    return quantized, cost


def row(result: Result) -> str:
    quality = f"{result.top1:.2f} | {result.cosine:.4f} | {result.recall:.1f}"
    cost = f"{result.seconds:.1f} | {result.cpu_seconds:.1f} | {result.peak_mib:.0f} | {result.iterations:.0f}"
    return f"| {result.run} | {result.seed} | {quality} | {cost} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument(
        "--runs", nargs="+", default=RUNS, help="a preset and fields; `everything`: all tensors at 3 bits"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--calibration", type=int, default=1024)
    parser.add_argument("--tests", type=int, default=4096)
    parser.add_argument("--probe", type=int, default=PROBE_IMAGES)
    parser.add_argument("--target", default="tensorrt")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="where the document goes as well")
    args = parser.parse_args()
    try:
        for run in args.runs:
            recipe_of(run)
    except fd.UserError as error:
        parser.error(str(error))
    device = torch.device(args.device)
    train, labels = read_set(args.images, "train")
    tests, truth = (part[: args.tests] for part in read_set(args.images, "t10k"))
    truth = truth.to(device)
    model = timm.create_model(NAME, img_size=SIZE, num_classes=0).to(device).eval()
    model.load_state_dict({name: value.float() for name, value in load_file(args.weights).items()})
    torch.manual_seed(0)
    with_classifier(model, train[: args.probe], labels[: args.probe].long(), device)
    logits, features = judged(model, tests, device)
    neighbours = nearest(features)
    correct = 100 * float((logits.argmax(1) == truth).float().mean())
    print(f"full precision: top-1 {correct:.2f} on {len(tests)} images\n")
    images = prepared(train[args.probe : args.probe + args.calibration], device).cpu()
    results: list[Result] = []
    failures: list[str] = []

    def document() -> str:
        found = {"model": NAME, "results": [asdict(result) for result in results], "failures": failures}
        if args.json:
            write_whole(args.json, f"{json.dumps(found)}\n".encode())
        return json.dumps(found)

    print("| run | seed | top-1 | cosine | recall@1 | s | CPU s | peak MiB | iterations |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for run in args.runs:
        for seed in args.seeds:
            try:
                quantized, cost = measured(run, seed, model, images, args.target)
            except Exception as error:  # also what a GPU refuses
                failures.append(f"{run}, seed {seed}: {type(error).__name__}: {' '.join(str(error).split())[:400]}")
                print(f"failed: {failures[-1]}", file=sys.stderr, flush=True)
                document()
                continue
            own, found = judged(quantized, tests, device)
            result = Result(
                run=run,
                seed=seed,
                top1=100 * float((own.argmax(1) == truth).float().mean()),
                cosine=float(F.cosine_similarity(found, features).mean()),
                recall=100 * float((nearest(found) == neighbours).float().mean()),
                **cost,  # type: ignore[arg-type]
            )
            results.append(result)
            print(row(result), flush=True)
            document()
    print(document())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
