"""What low bits buy in bytes, and cost in kernels: whole models with weights stored as INT8 and as INT4.

    python benchmarks/weight_storage.py
    python benchmarks/weight_storage.py --models deit_s --recipes w4a4 --cells cells.jsonl

Random weights, two random images and nothing learned: sizes and plans depend on the graph, not on its numbers. The
engines are TensorRT-RTX's for one compute capability, which no GPU is needed for. `int8` is what 0.1.0 wrote. Kernels
a block: the mean over the transformer blocks of a plan; the row fp16 is the original. Prints a table. With --cells FILE
each row is added to it as it ends; those in it are not run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from cells import keep, kept

import fimaq_deploy as fd
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.export import Traced, export_fp_onnx, trace
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.target import WeightStorage
from fimaq_deploy.verify.block_plan import BlockPlan, audit_log

ENGINE = "tensorrt-rtx"
CAPABILITY = (8, 9)
ORIGINAL = "fp16"
STORAGES: tuple[WeightStorage, ...] = ("int8", "int4")
QUICK = ("reconstruction.iterations=0", "tuning.iterations=0", "scale_search.candidates=1", "reconstruction.images=2")


@dataclass(frozen=True)
class Row:
    """One engine. Sizes in bytes; widened: weights that a kernel of their own widens in every run."""

    model: str
    recipe: str
    storage: str
    common: int | None
    own: int
    engine: int
    kernels: int
    in_blocks: int
    blocks: int
    int8_gemms: int
    gemms: int
    widened: int

    @property
    def cells(self) -> list[str]:
        sizes = ["" if size is None else f"{size / 1e6:.1f}" for size in (self.common, self.own, self.engine)]
        gemms = f"{self.int8_gemms} of {self.gemms}"
        counts = [str(self.kernels), f"{self.in_blocks / self.blocks:.1f}", gemms, str(self.widened)]
        return [self.model, self.recipe, self.storage, *sizes, *counts]


HEADER = (
    "model",
    "recipe",
    "stored as",
    "model.onnx",
    "file for TensorRT-RTX",
    "engine",
    "kernels",
    "kernels a block",
    "INT8 GEMMs",
    "weights widened in every run",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["deit_s", "swin_t"])
    parser.add_argument("--recipes", nargs="+", default=["w8a8", "w4a8", "w4a4", "w3a3"])
    parser.add_argument("--cells", type=Path, help="rows, one a line: read first, and added to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [Row(**cell) for cell in kept(arguments.cells)]
    for row in _measured(arguments, {(row.model, row.recipe, row.storage) for row in rows}):
        keep(arguments.cells, asdict(row))
        rows.append(row)
    for cells in (HEADER, ("---",) * 3 + ("---:",) * (len(HEADER) - 3), *(row.cells for row in rows)):
        print(f"| {' | '.join(cells)} |")


def _measured(arguments: argparse.Namespace, done: set[tuple[str, str, str]]) -> Iterator[Row]:
    for name in arguments.models:
        network = fd.load_model(name, "random")
        if (name, ORIGINAL, "") not in done:
            with TemporaryDirectory() as folder:
                file = export_fp_onnx(network, Path(folder) / "model.onnx", target=ENGINE)
                yield _compiled(file, None, (name, ORIGINAL, ""))
        shape = describe_model(network, name).input_shape
        images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        for recipe in arguments.recipes:
            left = [storage for storage in STORAGES if (name, recipe, storage) not in done]
            if left:
                settings = fd.Recipe.load(recipe).with_settings(QUICK)
                graph = trace(fd.quantize(network, images, settings, target=("onnxruntime-cpu", ENGINE)))
                for storage in left:
                    with TemporaryDirectory() as folder:
                        yield _written(graph, storage, Path(folder), (name, recipe, storage))


def _written(graph: Traced, storage: WeightStorage, folder: Path, key: tuple[str, str, str]) -> Row:
    common = graph.write(folder / "model.onnx", weight_storage=storage)
    own = graph.write(folder / "model.engine.onnx", ENGINE, weight_storage=storage)
    return _compiled(own, common.stat().st_size, key)


def _compiled(own: Path, common: int | None, key: tuple[str, str, str]) -> Row:
    engine = own.with_suffix(".engine")
    compiled = find_runtime(ENGINE).compile(own, engine, compute_for=[CAPABILITY], verbose=True)
    plan = audit_log(compiled.log, read_structure(own))
    blocks = [one for one in plan if "blocks" in one.name]
    return Row(
        *key,
        common=common,
        own=own.stat().st_size,
        engine=engine.stat().st_size,
        kernels=_sum(plan, "kernels"),
        in_blocks=_sum(blocks, "kernels"),
        blocks=len(blocks),
        int8_gemms=_sum(plan, "int8_gemms"),
        gemms=_sum(plan, "gemms"),
        widened=_sum(plan, "dequantized_weights"),
    )


def _sum(blocks: list[BlockPlan] | tuple[BlockPlan, ...], key: str) -> int:
    return sum(getattr(one, key) for one in blocks)


if __name__ == "__main__":
    main()
