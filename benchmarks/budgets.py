"""Does a budget choose better than a preset? `--recipe auto` beside uniform and naive mixes of equal size.

    python benchmarks/budgets.py
    python benchmarks/budgets.py --models vit_shapes --seeds 0 --images 128

For each seed: the presets w4a8 (patch embedding and head in 8 bits) and w8a8, and `auto` with the file size of w4a8 and
with sizes between the two. Beside each of these a mix of about the same size that nobody measured for: 8 bits for the
first layers of the model as far as the size goes. Prints a line a run, and the means at the end.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import fimaq_deploy as fd
from fimaq_deploy.calibration.mixing.options import FORMATS
from fimaq_deploy.report.schema import Mix

TARGET = "onnxruntime-cpu"
SHARES = (0.0, 0.5)  # of the way from the size of w4a8 to that of w8a8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_shapes", "swin_shapes"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256)
    arguments = parser.parse_args()
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for model in arguments.models:
        for seed in arguments.seeds:
            with TemporaryDirectory() as folder:
                for name, size, top1 in _runs(model, seed, arguments.images, Path(folder)):
                    print(f"{model} seed {seed} {name:24} {size / 1e3:7.0f} kB {top1:6.2f} %", flush=True)
                    found[model, name].append((size, top1))
    print("\n| model | mix | kB | top-1 |\n| --- | --- | ---: | ---: |")
    for (model, name), runs in found.items():
        sizes, figures = zip(*runs, strict=True)
        told = f"{mean(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"
        print(f"| {model} | {name} | {mean(sizes) / 1e3:.0f} | {told} |")


def _runs(model: str, seed: int, images: int, folder: Path):  # type: ignore[no-untyped-def]
    def built(name: str, recipe: str | fd.Recipe, **more: float) -> tuple[str, int, float, Mix | None]:
        result = fd.build(
            model,
            recipe=recipe,
            settings=[f"reconstruction.images={images}"],
            targets=[TARGET],
            seed=seed,
            replay=0,
            out=folder / name,
            **more,
        )
        assert result is not None
        row = result.report.deployed[0]
        assert row.accuracy is not None
        return name, (folder / name / "model.onnx").stat().st_size, row.accuracy.top1, result.report.mix

    smallest, largest = built("w4a8", "w4a8"), built("w8a8", "w8a8")
    yield from (each[:3] for each in (smallest, largest))
    for share in SHARES:
        budget = (smallest[1] + share * (largest[1] - smallest[1])) / 1e6
        auto = built(f"auto {share:g}", "auto", size_budget=budget)
        yield auto[:3]
        mix = auto[3]
        assert mix is not None
        bytes_of = {name: _weights(model, name) for name in mix.formats}
        left = sum(bytes_of[name] for name, one in mix.formats.items() if one == "w8a8")
        layers = {}
        for name in mix.formats:
            wide = bytes_of[name] <= left
            left -= bytes_of[name] if wide else 0
            layers[name] = FORMATS["w8a8" if wide else "w4a8"].model_dump()
        yield built(f"first layers {share:g}", fd.Recipe.load("w4a8").replace(layers=layers))[:3]


def _weights(model: str, layer: str) -> int:
    return int(fd.load_model(model).get_submodule(layer).weight.numel())


if __name__ == "__main__":
    main()
