"""Train one of the models that ship with the package and save its weights.

    python examples/train_bundled.py vit_digits --out build
    python examples/train_bundled.py swin_shapes --out build

Warm-up and cosine decay, label smoothing 0.1, bfloat16 autocast; AdamW on the digits, on the shapes Muon for the
matrices inside the blocks and AdamW for the rest. The digits take minutes; the shapes take the better part of an hour
on one core. Prints the test top-1, which `docs/log` records for the shipped weights.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fimaq_deploy.data import digits, shapes
from fimaq_deploy.data.bundled import Split
from fimaq_deploy.models.bundled import BUNDLED, HERE, Task

DEFAULT_STEPS = {"vit_digits": 2500, "swin_digits": 2500, "vit_shapes": 3500, "swin_shapes": 4200}


def load_split(task: Task, split: Split, count: int) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and labels."""
    images, labels = digits.load(split) if task == "digits" else shapes.generate(split, count)
    return torch.from_numpy(images), torch.from_numpy(labels)


def normalise(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def augment(images: Tensor, task: Task) -> Tensor:
    """Shift by up to two pixels; flip where the class survives it."""
    padded = nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    dy, dx = torch.randint(0, 5, (2,)).tolist()
    height, width = images.shape[-2:]
    images = padded[..., dy : dy + height, dx : dx + width]
    if task == "shapes" and torch.rand(()) < 0.5:
        images = images.flip(-1)
    return images


def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        hits = [(model(normalise(x)).argmax(1) == y) for x, y in zip(images.split(250), labels.split(250), strict=True)]
    model.train()
    return 100 * torch.cat(hits).float().mean().item()


def create_optimisers(model: nn.Module, lr: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the blocks and AdamW for the rest."""
    named = dict(model.named_parameters())
    matrices = [p for n, p in named.items() if muon and "blocks" in n and p.ndim == 2 and "table" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in named.values() if id(p) not in chosen]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, weight_decay=0.05, betas=(0.9, 0.98))]
    if matrices:
        found.append(torch.optim.Muon(matrices, lr=2 * lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"))
    return found


def train(name: str, steps: int, batch: int, lr: float, seed: int, out: Path) -> None:
    torch.manual_seed(seed)
    bundled = BUNDLED[name]
    model = bundled.create().train()
    images, labels = load_split(bundled.task, "train", 65536)
    test_images, test_labels = load_split(bundled.task, "test", 4000)
    optimisers = create_optimisers(model, lr, muon=bundled.task == "shapes")
    warm_up = max(1, steps // 20)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))
        )
        for optimiser in optimisers
    ]
    started = time.perf_counter()
    order = np.random.default_rng(seed)
    for step in range(steps):
        pick = torch.from_numpy(order.integers(0, len(images), batch))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(augment(normalise(images[pick]), bundled.task))
        loss = nn.functional.cross_entropy(logits.float(), labels[pick], label_smoothing=0.1)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        if (step + 1) % 250 == 0:
            seconds = time.perf_counter() - started
            print(f"{name} step {step + 1} loss {loss.item():.3f} {seconds:.0f} s", flush=True)
        if (step + 1) % 1000 == 0:
            print(f"{name} top-1 {top1(model, test_images[:2000], test_labels[:2000]):.2f}", flush=True)
            save_file(model.state_dict(), out / f"{name}.safetensors")
    print(f"{name} final top-1 {top1(model, test_images, test_labels):.2f} on {len(test_labels)} images", flush=True)
    save_file(model.state_dict(), out / f"{name}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(BUNDLED))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder for MODEL.safetensors; default: the package's own"
    )
    args = parser.parse_args()
    steps = args.steps or DEFAULT_STEPS[args.model]
    args.out.mkdir(parents=True, exist_ok=True)
    train(args.model, steps, args.batch, args.lr, args.seed, args.out)


if __name__ == "__main__":
    main()
