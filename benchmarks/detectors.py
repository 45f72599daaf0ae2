"""Encoders inside detectors of full size, from their configuration: quantized, exported, compiled, and their plan.

    python benchmarks/detectors.py
    python benchmarks/detectors.py --models rfdetr --recipes w8a8 --sms 89 120

Random weights, two images of noise, one iteration a block: what is shown is that the road holds at this size (memory
and time, one file, one engine) and what the compiler makes of it, not accuracy. Images go through the whole model, so
the encoder learns from what it gets there. Each model runs in a process of its own, which reports its peak of memory.
Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from audit import Row, plan, read_row
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.export import export_fp_onnx, export_onnx
from fimaq_deploy.models.inside import find_backbone
from fimaq_deploy.verify.block_plan import kernel_counts

TARGET = "tensorrt-rtx"
SHORT = ("reconstruction.iterations=1", "reconstruction.images=2", "reconstruction.batch_size=1",
         "reconstruction.fisher_images=2", "tuning.iterations=0", "scale_search.images=2",
         "scale_search.candidates=4")  # fmt: skip


def mask_rcnn() -> tuple[nn.Module, tuple[int, int]]:
    """torchvision's Mask R-CNN on timm's swin_t, for 800×1,344: 800×1,333 padded to whole patches of its maps."""
    import timm
    from torchvision.models.detection import MaskRCNN
    from torchvision.ops import FeaturePyramidNetwork

    class Pyramid(nn.Module):
        def __init__(self, body: Any) -> None:
            super().__init__()
            self.body, self.out_channels = body, 256
            self.fpn = FeaturePyramidNetwork(body.feature_info.channels(), 256)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            maps = enumerate(self.body(images))
            return self.fpn({str(level): found.permute(0, 3, 1, 2) for level, found in maps})

    from torchvision.models.detection.rpn import AnchorGenerator

    body = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, img_size=(800, 1344), window_size=7)
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,)), ((0.5, 1.0, 2.0),) * 4)
    return MaskRCNN(Pyramid(body), 91, rpn_anchor_generator=anchors, fixed_size=(1344, 800)), (800, 1344)


def rf_detr() -> tuple[nn.Module, tuple[int, int]]:
    """RF-DETR of transformers as its configuration makes it: a DINOv2-small of 4×4 windows, for 560×560."""
    from transformers import RfDetrConfig, RfDetrForObjectDetection

    return RfDetrForObjectDetection(RfDetrConfig()), (560, 560)


def rt_detr() -> tuple[nn.Module, tuple[int, int]]:
    """RT-DETR of transformers on its own Swin-T, for 640×640."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, SwinConfig

    body = SwinConfig(image_size=640, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7)
    body.out_features = ["stage2", "stage3", "stage4"]
    return RTDetrForObjectDetection(RTDetrConfig(backbone_config=body, encoder_in_channels=[192, 384, 768])), (640, 640)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[int, int]]]] = {
    "maskrcnn": mask_rcnn,
    "rfdetr": rf_detr,
    "rtdetr": rt_detr,
}


def measure(name: str, recipe: str, sms: list[str]) -> dict[str, Any]:
    """One model with one recipe."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, size = MODELS[name]()
    model.eval()
    inside = find_backbone(model)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    quantized = fd.quantize(model, images, fd.Recipe.load(recipe).with_settings(SHORT), TARGET)
    seconds = time.perf_counter() - started
    with TemporaryDirectory() as folder:
        path = export_onnx(quantized, Path(folder) / "model.onnx", target=TARGET)
        twin = export_fp_onnx(
            inside.encoder, Path(folder) / "twin.onnx", target=TARGET, input_shape=quantized.input_shape
        )
        rows = [read_row(name, recipe, sm, plan(path, sm, kernel_counts(plan(twin, sm)))) for sm in sms]
        sizes = {"quantized": path.stat().st_size, "float16": twin.stat().st_size}
    return {
        "encoder": f"{inside.name} ({type(inside.encoder).__name__})",
        "input": quantized.input_shape,
        "seconds": round(seconds, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "bytes": sizes,
        "rows": [asdict(row) for row in rows],
    }


def told(result: dict[str, Any]) -> list[str]:
    """The lines of the table."""
    lines = []
    for fields in result["rows"]:
        row = Row(**fields)
        attention = ", ".join(f"{count} {kind}" for kind, count in sorted(row.attention.items()))
        left = f", {row.left_alone} left alone" if row.left_alone else ""
        gemms, size = f"{row.int8} of {row.gemms}{left}", "×".join(map(str, result["input"]))
        kernels, cost = f"{row.kernels}, {row.twin_kernels}", (f"{result[key]:g}" for key in ("seconds", "peak_gib"))
        cells = [row.model, size, row.recipe, row.sms, gemms, attention, kernels, *cost]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--recipes", nargs="+", default=["w8a8"])
    parser.add_argument("--sms", nargs="+", default=["89"], help="compute capabilities, as in 89 or 80+89")
    parser.add_argument("--one", action="store_true", help="measure the first model and recipe here")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.models[0], args.recipes[0], args.sms)))
        return
    print("| model | encoder reads | recipe | sm | INT8 of all GEMMs | attention | kernels, FP16 | s | peak GiB |")
    print("|---|---|---|---|---|---|---|---:|---:|")
    results = []
    for name in args.models:
        for recipe in args.recipes:
            command = [sys.executable, __file__, "--one", "--models", name, "--recipes", recipe, "--sms", *args.sms]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(*told(results[-1]), sep="\n", flush=True)
    print(json.dumps({"target": TARGET, "results": results}))


if __name__ == "__main__":
    main()
