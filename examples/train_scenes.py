"""Train one of the shipped detectors or the segmenter on pictures of several objects and save its weights.

    python examples/train_scenes.py maskrcnn_shapes --out build
    python examples/train_scenes.py detr_shapes --out build --minutes 10

The Mask R-CNN's encoder starts from `swin_shapes`, whose sizes it has, and keeps its first stage; the others take that
encoder, trained so, and leave it as it is. AdamW, warm-up and cosine decay; pictures are flipped and turned; the Swin
computes in bfloat16. They take some 10, 5 and 2 minutes of one core. After `--minutes` it stops, and the same command
goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fimaq_deploy.data import scenes
from fimaq_deploy.models.bundled import BUNDLED, HERE, SHIPPED
from fimaq_deploy.models.bundled import scenes as models

DEFAULT_STEPS = {"maskrcnn_shapes": 2200, "detr_shapes": 700, "segmenter_shapes": 450}
DEFAULT_BATCH = {"maskrcnn_shapes": 8, "detr_shapes": 12, "segmenter_shapes": 8}
CREATE: dict[str, Callable[[], nn.Module]] = {
    "maskrcnn_shapes": models.maskrcnn_shapes,
    "detr_shapes": models.detr_shapes,
    "segmenter_shapes": models.segmenter_shapes,
}


def normalise(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def turned(found: scenes.Scenes, rng: np.random.Generator) -> scenes.Scenes:
    """All pictures of a batch turned by the same quarters and maybe mirrored: every class survives it."""
    images, ids = found.images, found.ids
    quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
    images, ids = (np.rot90(x, quarters, (-2, -1)) for x in (images, ids))
    if mirror:
        images, ids = images[..., ::-1], ids[..., ::-1]
    return scenes.Scenes(np.ascontiguousarray(images), np.ascontiguousarray(ids), found.classes)


def maskrcnn_loss(model: nn.Module, images: Tensor, found: scenes.Scenes) -> Tensor:
    targets = []
    for boxes, labels, masks in zip(found.boxes(), found.classes, found.masks(), strict=True):
        is_object = labels >= 0
        targets.append(
            {
                "boxes": torch.from_numpy(boxes[is_object]),
                "labels": torch.from_numpy(labels[is_object] + 1),
                "masks": torch.from_numpy(masks[is_object].astype(np.uint8)),
            }
        )
    return sum(model(list(images), targets).values())


def detr_loss(model: nn.Module, images: Tensor, found: scenes.Scenes) -> Tensor:
    targets = []
    for boxes, labels in zip(found.boxes() / scenes.IMAGE_SIZE, found.classes, strict=True):
        near, far = boxes[labels >= 0, :2], boxes[labels >= 0, 2:]
        centres = np.concatenate([(near + far) / 2, far - near], 1).astype(np.float32)
        targets.append({"class_labels": torch.from_numpy(labels[labels >= 0]), "boxes": torch.from_numpy(centres)})
    return model(pixel_values=images, labels=targets).loss


def segmenter_loss(model: nn.Module, images: Tensor, found: scenes.Scenes) -> Tensor:
    weight = torch.tensor([0.3] + [1.0] * models.CLASSES)
    return nn.functional.cross_entropy(model(images), torch.from_numpy(found.maps()), weight=weight)


LOSS = {"maskrcnn_shapes": maskrcnn_loss, "detr_shapes": detr_loss, "segmenter_shapes": segmenter_loss}


def start_encoder(name: str, model: Any) -> None:
    """The weights of a shipped model into the encoder."""
    if name == "maskrcnn_shapes":
        source = load_file(BUNDLED["swin_shapes"].weights)
        source = {key: value for key, value in source.items() if not key.startswith(("head", "norm."))}
    else:
        source = _encoder_of(load_file(SHIPPED["maskrcnn_shapes"].weights))
    if name == "detr_shapes":
        source = _as_transformers(source)
    else:
        source = {key.replace("layers.", "layers_", 1): value for key, value in source.items()}
    missing, unexpected = encoder_of(name, model).load_state_dict(source, strict=False)
    learned = [key for key in missing if not key.endswith(("index", "mask"))]
    print(f"{name} starts from {len(source) - len(unexpected)} tensors; without: {learned + unexpected}", flush=True)


def encoder_of(name: str, model: Any) -> Any:
    if name == "detr_shapes":
        return model.model.backbone.model.swin
    return model.encoder if name == "segmenter_shapes" else model.backbone.body


def _encoder_of(maskrcnn: dict[str, Tensor]) -> dict[str, Tensor]:
    """The Swin of the shipped Mask R-CNN under timm's names."""
    start = "backbone.body."
    found = {key.removeprefix(start): value.float() for key, value in maskrcnn.items() if key.startswith(start)}
    return {key.replace("layers_", "layers."): value for key, value in found.items()}


def freeze(name: str, model: Any) -> None:
    """What stays as it is: the first stage of the Mask R-CNN's Swin, and all of that Swin in the other models."""
    encoder = encoder_of(name, model)
    for module in (encoder.patch_embed, encoder.layers_0) if name == "maskrcnn_shapes" else (encoder,):
        module.requires_grad_(False)


def _as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's Swin weights under the names of transformers, where downsampling ends a stage instead of starting one."""
    names = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "patch_embed.norm": "embeddings.norm",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "attn.relative": "attention.relative_position_bias.relative",
    }
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("layers."):
            stage, rest = key.removeprefix("layers.").split(".", 1)
            key = f"encoder.layers.{int(stage) - rest.startswith('downsample')}.{rest}"
        for old, new in names.items():
            key = key.replace(old, new)
        if ".attn.qkv." in key:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                found[key.replace("attn.qkv", f"attention.{part}_proj")] = piece.clone()
        else:
            found[key] = value
    return found


def in_bfloat16(module: nn.Module) -> None:
    """Computes a Swin in bfloat16 while it trains; what it hands out is float32."""
    inner = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            found = inner(*args, **kwargs)
        if isinstance(found, list):
            return [each.float() for each in found]
        found.feature_maps = tuple(each.float() for each in found.feature_maps)
        return found

    module.forward = forward


def train(name: str, steps: int, batch: int, lr: float, seed: int, pictures: int, out: Path, minutes: float) -> None:
    torch.manual_seed(seed)
    started = time.perf_counter()
    model: Any = CREATE[name]().train()
    saved = out / f"{name}.checkpoint.pt"
    freeze(name, model)
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    first = 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    else:
        start_encoder(name, model)
    in_bfloat16(model.model.backbone.model if name == "detr_shapes" else encoder_of(name, model))
    known = scenes.generate("train", pictures)
    print(f"{name} {sum(map(torch.Tensor.numel, parameters))} parameters, from step {first}", flush=True)
    losses: list[float] = []
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        pick = rng.integers(0, pictures, batch)
        found = turned(scenes.Scenes(known.images[pick], known.ids[pick], known.classes[pick]), rng)
        loss = LOSS[name](model, normalise(torch.from_numpy(found.images)), found)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        seconds = time.perf_counter() - started
        over = step + 1 == steps or seconds > 60 * minutes
        if (step + 1) % 100 == 0 or over:
            print(f"{name} step {step + 1} loss {np.mean(losses[-100:]):.3f} {seconds:.0f} s", flush=True)
        if (step + 1) % 200 == 0 or over:
            state = {"model": model, "optimiser": optimiser, "schedule": schedule}
            torch.save({"step": step + 1, **{key: each.state_dict() for key, each in state.items()}}, saved)
            save_weights(model, out / f"{name}.safetensors")
        if over:
            print(f"{name} {'done' if step + 1 == steps else 'goes on'} after step {step + 1}", flush=True)
            break


def save_weights(model: nn.Module, path: Path) -> None:
    """In half precision."""
    state = {key: value.detach().contiguous().clone() for key, value in model.state_dict().items()}
    save_file({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(CREATE))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=16384, help="to learn from")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after that long; run again to go on")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder for MODEL.safetensors; default: the package's own"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    steps, batch = args.steps or DEFAULT_STEPS[args.model], args.batch or DEFAULT_BATCH[args.model]
    train(args.model, steps, batch, args.lr, args.seed, args.pictures, args.out, args.minutes)


if __name__ == "__main__":
    main()
