"""Fake-quant against the file, block by block, in every format: a row a preset, a column a block.

    python benchmarks/format_parity.py
    python benchmarks/format_parity.py --models vit_digits --presets fp8 nvfp4

Each block gets what the file's block before it handed on, and the file runs in ONNX Runtime as it is written, which has
kernels for every format but NVFP4's activations; those are spelled out in it. A cell: the share of the quantizers'
codes that differ, and by how many steps at most; where a block quantizes no activation, the largest difference of what
it hands on, over its standard deviation. `fp16` is the original with its numbers in that type beside the original in
float32; for BF16 ONNX Runtime has no kernels on a CPU. Nothing is learned: parity is of arithmetic. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.export import export_fp_onnx, export_onnx
from fimaq_deploy.models.describe import image_shape
from fimaq_deploy.models.families.roles import Stage
from fimaq_deploy.target import HighPrecision, find_target
from fimaq_deploy.verify.stages import ParityReport, StageParity, compare_stages

TARGET, SM = "tensorrt-rtx", 120  # which has every format
PRESETS = ("w8a8", "w4a8", "w4a4", "w3a3", "w4a16", "fp8", "w8a8-fp8attention", "nvfp4", "fp16")
HALVES: dict[str, HighPrecision] = {"fp16": "float16"}
QUICK = ("reconstruction.iterations=0", "tuning.iterations=0", "scale_search.candidates=4", "reconstruction.images=8")


def head_72() -> nn.Module:
    """A ViT whose heads no INT8 attention fuses, and of as many tokens as FP8's needs."""
    torch.manual_seed(0)
    return VisionTransformer(img_size=96, patch_size=16, embed_dim=144, num_heads=2, depth=2, num_classes=16).eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit_digits": lambda: fd.load_model("vit_digits"),
    "swin_digits": lambda: fd.load_model("swin_digits"),
    "ViT, head 72": head_72,
}


@dataclass(frozen=True)
class Floats:
    """A model in full precision, as parity reads one."""

    model: nn.Module

    @property
    def stages(self) -> list[Stage]:
        return stages_of(self.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--presets", nargs="+", default=PRESETS, choices=PRESETS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.models:
        print(f"\n{name}\n")
        header = True
        for preset, report in _reports(MODELS[name](), arguments.presets):
            if header:
                names = [stage.name for stage in report.stages]
                print(f"| preset | {' | '.join(names)} | parts |\n|---|{'---:|' * (len(names) + 1)}", flush=True)
                header = False
            parted = report.first_parting.name if report.first_parting else "nowhere"
            judged = "not judged" if preset in HALVES else parted
            print(f"| `{preset}` | {' | '.join(map(_cell, report.stages))} | {judged} |", flush=True)


def _reports(model: nn.Module, presets: list[str]) -> Iterator[tuple[str, ParityReport]]:
    images = torch.randn(8, *image_shape(model), generator=torch.Generator().manual_seed(0))
    for preset in presets:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            if preset in HALVES:
                target = replace(find_target("onnxruntime-cpu"), high_precision=HALVES[preset])
                export_fp_onnx(model, path, target=target)
                yield preset, compare_stages(Floats(model), path, images)
            else:
                quantized = fd.quantize(model, images, fd.Recipe.load(preset).with_settings(QUICK), TARGET, sm=SM)
                yield preset, compare_stages(quantized, export_onnx(quantized, path), images)


def _cell(stage: StageParity) -> str:
    if stage.flips is None:
        return f"{stage.relative_difference:.0e}"
    return f"{100 * stage.flips.flipped:.2g} %, {stage.flips.largest_step}"


if __name__ == "__main__":
    main()
