"""What low bits buy in bytes, and cost in kernels: whole models with weights stored as INT8 and as INT4.

    python benchmarks/weight_storage.py
    python benchmarks/weight_storage.py --models deit_s --recipes w4a4

Random weights, two random images and nothing learned: sizes and plans depend on the graph, not on its numbers. The
engines are TensorRT-RTX's for one compute capability, which no GPU is needed for. Prints a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import fimaq_deploy as fd
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.export import Traced, trace
from fimaq_deploy.graph.structure import read_structure
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.target import WeightStorage
from fimaq_deploy.verify.layer_audit import audit_log

ENGINE = "tensorrt-rtx"
CAPABILITY = (8, 9)
STORAGES: tuple[WeightStorage, ...] = ("int8", "int4")
QUICK = ("reconstruction.iterations=0", "tuning.iterations=0", "scale_search.candidates=1", "reconstruction.images=2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["deit_s", "swin_t"])
    parser.add_argument("--recipes", nargs="+", default=["w8a8", "w4a8", "w4a4", "w3a3"])
    arguments = parser.parse_args()
    print(
        "| model | recipe | stored as | model.onnx MB | engine's file MB | engine MB | kernels | dequantized weights |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for name in arguments.models:
        network = fd.load_model(name, "random")
        shape = describe_model(network, name).input_shape
        images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        for recipe in arguments.recipes:
            settings = fd.Recipe.load(recipe).with_settings(QUICK)
            graph = trace(fd.quantize(network, images, settings, target=("onnxruntime-cpu", ENGINE)))
            for storage in STORAGES:
                with TemporaryDirectory() as folder:
                    print(f"| {name} | {recipe} | {storage} | {_measured(graph, storage, Path(folder))} |", flush=True)


def _measured(graph: Traced, storage: WeightStorage, folder: Path) -> str:
    common = graph.write(folder / "model.onnx", weight_storage=storage)
    own = graph.write(folder / "model.engine.onnx", ENGINE, weight_storage=storage)
    compiled = find_runtime(ENGINE).compile(own, folder / "model.engine", compute_for=[CAPABILITY], verbose=True)
    blocks = audit_log(compiled.log, read_structure(own))
    kernels, dequantized = (sum(getattr(one, key) for one in blocks) for key in ("kernels", "dequantized_weights"))
    sizes = " | ".join(f"{path.stat().st_size / 1e6:.1f}" for path in (common, own, folder / "model.engine"))
    return f"{sizes} | {kernels} | {dequantized}"


if __name__ == "__main__":
    main()
