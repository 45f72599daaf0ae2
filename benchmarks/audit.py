"""Do our graphs compile to the kernels that they were written for? The layer plans of whole models, without a GPU.

    python benchmarks/audit.py
    python benchmarks/audit.py --models deit_s --recipes w4a4 --sms 89

Random weights, two random images and no search: a plan depends on the graph, not on its numbers. Each file is compiled
for each group of compute capabilities, and so is the FP16 model without quantization: "--sms 80+86+89+120 120" is one
engine for four of them and one for Blackwell alone. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import fimaq_deploy as fd
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.export import export_fp_onnx, export_onnx
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log, kernel_counts
from fimaq_deploy.verify.layer_audit import builder_log

TARGET = "tensorrt-rtx"
MODELS = ("deit_s", "vit_s", "swin_t", "vit_b", "swin_s", "vit_base_patch16_384")
RECIPES = ("w8a8", "w4a8", "w4a4", "w4a16")
QUICK = ("reconstruction.iterations=0", "tuning.iterations=0", "scale_search.candidates=1", "reconstruction.images=2")


@dataclass(frozen=True)
class Row:
    """One file in one engine, for its `sms`. worse: blocks with more kernels than the twin, with both numbers."""

    model: str
    recipe: str
    sms: str
    gemms: int
    int8: int
    weight_only: int
    left_alone: int
    lost: int
    attention: dict[str, int]
    dequantized: int
    kernels: int
    twin_kernels: int
    worse: dict[str, tuple[int, int]]

    @property
    def holds(self) -> bool:
        """Whether every product runs as written, attention is fused and no weight goes through memory as floats."""
        return not (self.lost or self.dequantized or "unfused" in self.attention)


def read_row(model: str, recipe: str, sms: str, blocks: Sequence[BlockPlan]) -> Row:
    twins = {block.name: block.twin_kernels or 0 for block in blocks}
    return Row(
        model=model,
        recipe=recipe,
        sms=sms,
        gemms=sum(block.gemms for block in blocks),
        int8=sum(block.int8_gemms for block in blocks),
        weight_only=sum(block.weight_only_gemms for block in blocks),
        left_alone=sum(block.left_alone for block in blocks),
        lost=sum(len(block.lost_gemms) for block in blocks),
        attention=dict(Counter(block.attention for block in blocks if block.attention)),
        dequantized=sum(block.dequantized_weights for block in blocks),
        kernels=sum(block.kernels for block in blocks),
        twin_kernels=sum(twins.values()),
        worse={b.name: (b.kernels, twins[b.name]) for b in blocks if b.kernels > twins[b.name]},
    )


def audit_model(name: str, recipes: Sequence[str], groups: Sequence[str], folder: Path) -> Iterator[Row]:
    network = fd.load_model(name, "random")
    images = torch.randn(2, *describe_model(network, name).input_shape, generator=torch.Generator().manual_seed(0))
    twin = export_fp_onnx(network, folder / "twin.onnx", target=TARGET)
    counts = {sms: kernel_counts(plan(twin, sms)) for sms in groups}
    for recipe in recipes:
        quantized = fd.quantize(network, images, fd.Recipe.load(recipe).with_settings(QUICK), target=TARGET)
        path = export_onnx(quantized, folder / "model.onnx", target=TARGET)
        for sms in groups:
            yield read_row(name, recipe, sms, plan(path, sms, counts[sms]))


def plan(path: Path, sms: str, twin: dict[str, int] | None = None) -> tuple[BlockPlan, ...]:
    return audit_log(
        builder_log(path, find_runtime(TARGET), [divmod(int(sm), 10) for sm in sms.split("+")]),
        read_structure(path),
        twin,
    )


def print_table(rows: Sequence[Row]) -> None:
    print(
        "\n| model | recipe | sm | INT8 + weight-only of all GEMMs | attention | dequantized | kernels, twin | more |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((row.model, row.recipe, _facts(row)) for row in rows):
        sms = [row.sms for row in rows if (row.model, row.recipe, _facts(row)) == key]
        print(f"| {key[0]} | {key[1]} | {', '.join(sms)} | {' | '.join(key[2])} |")


def _facts(row: Row) -> tuple[str, ...]:
    attention = ", ".join(f"{count} {kind}" for kind, count in sorted(row.attention.items()))
    worse = ", ".join(f"{name} {own}/{twin}" for name, (own, twin) in row.worse.items()) or "none"
    left = f", {row.left_alone} left alone" if row.left_alone else ""
    gemms = f"{row.int8} + {row.weight_only} of {row.gemms}{left}"
    return gemms, attention, str(row.dequantized), f"{row.kernels}, {row.twin_kernels}", worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument(
        "--sms", nargs="+", default=["80", "86", "89", "120"], help="compute capabilities, as in 89 or 80+89"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.models:
        with TemporaryDirectory() as folder:
            for row in audit_model(name, args.recipes, args.sms, Path(folder)):
                rows.append(row)
                print(name, row.recipe, row.sms, *_facts(row), "" if row.holds else "BROKEN", sep="  ", flush=True)
    print_table(rows)
    print(json.dumps({"target": TARGET, "holds": all(r.holds for r in rows), "rows": [asdict(r) for r in rows]}))


if __name__ == "__main__":
    main()
