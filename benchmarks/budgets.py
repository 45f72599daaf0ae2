"""Does a budget choose better than a preset? `--recipe auto` beside uniform and naive mixes of equal size.

    python benchmarks/budgets.py --state cells.jsonl
    python benchmarks/budgets.py --models vit_shapes --seeds 0 --images 128 --state cells.jsonl

For each seed: the presets w4a8 (patch embedding and head in 8 bits) and w8a8, and `auto` with the file size of w4a8 and
with sizes between the two. Beside each of these a mix of about the same size that nobody measured for: 8 bits for the
first, or the last, layers of the model as far as the size goes. Every row learns alike; figures are those of the
fake-quant model on the test images, and sizes those of model.onnx.

Each finished row is a line of --state at once, and is not computed again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from cells import keep, kept
from formats import of_classes, outputs

import fimaq_deploy as fd
from fimaq_deploy.calibration.mixing.options import FORMATS
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.export import export_onnx
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.pipeline.budgets import Search
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.request import Request

TARGET = "onnxruntime-cpu"
Row = dict[str, Any]


class Cells:
    """Rows that are done, by name, in a file of lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.done = path, {row["key"]: row for row in kept(path)}

    def of(self, key: str, compute: Callable[[], Row]) -> Row:
        if key not in self.done:
            self.done[key] = {"key": key, **compute()}
            keep(self.path, self.done[key])
            shown = {name: value for name, value in self.done[key].items() if not isinstance(value, dict)}
            print(shown, flush=True)
        return self.done[key]


class Case:
    """A model and a seed."""

    def __init__(self, name: str, seed: int, args: argparse.Namespace, cells: Cells, folder: Path) -> None:
        self.name, self.seed, self.settings, self.naives = name, seed, args.set, args.naive
        self.cells, self.folder, tests, settings = cells, folder, args.tests, args.set
        self.key = " ".join([name, f"seed {seed}", *settings])
        self.model, task = fd.load_model(name), BUNDLED[name].task
        self.images = bundled_images(task, "calibration", 2048)
        batches = [*bundled_images(task, "test", tests).batches(tests)]
        self.tests, self.labels = (torch.cat([getattr(one, at) for one in batches]) for at in ("images", "labels"))
        self.reference = outputs(self.model, self.tests)

    def measured(self, label: str, recipe: fd.Recipe, layers: dict[str, str] | None = None) -> Row:
        """Learned, written and measured. layers: formats that replace the recipe's own."""

        def compute() -> Row:
            own = {} if layers is None else {name: FORMATS[one].model_dump() for name, one in layers.items()}
            taken = recipe if layers is None else recipe.replace(layers=own)
            quantized = fd.quantize(self.model, self.images, taken, TARGET, seed=self.seed)
            file = self.folder / f"{label}.onnx".replace(" ", "-")
            export_onnx(quantized, file)
            found = of_classes(outputs(quantized.model, self.tests), self.reference, self.labels)
            return {"mix": label, "bytes": file.stat().st_size, **found, "formats": layers or {}}

        return self.cells.of(f"{self.key}: {label}", compute)

    def chosen(self, label: str, budget: float) -> Row:
        """What `--recipe auto` chooses for so many megabytes."""

        def compute() -> Row:
            request = Request.of(
                self.name, recipe="auto", settings=self.settings, targets=TARGET, size_budget=budget, seed=self.seed
            )
            state = self.folder / label
            for uniform in self.folder.glob("*/w?a8-*"):  # what every choice begins with
                shutil.copytree(uniform, state / uniform.name, dirs_exist_ok=True)
            search = Search(request, self.model, self.images, self.images, Measures({}), state, lambda *_: None)
            mix = search.run()
            record = mix.model_dump(include={"chosen", "probes"})
            return {"mix": label, "formats": mix.formats, "losses": mix.losses, "record": record}

        return self.cells.of(f"{self.key}: choice of {label}", compute)

    def rows(self, shares: Iterable[float]) -> None:
        base, settings = fd.Recipe.load("w4a8").with_settings(self.settings), self.settings
        smallest = self.measured("w4a8", base)
        largest = self.measured("w8a8", fd.Recipe.load("w8a8").with_settings(settings))
        for share in shares:
            budget = (smallest["bytes"] + share * (largest["bytes"] - smallest["bytes"])) / 1e6
            chosen = self.chosen(f"auto {share:g}", budget)["formats"]
            self.measured(f"auto {share:g}", base, chosen)
            for which in self.naives:
                names = list(chosen)[:: -1 if which == "last" else 1]
                self.measured(f"{which} layers {share:g}", base, self.naive(names, chosen))

    def naive(self, names: list[str], chosen: dict[str, str]) -> dict[str, str]:
        """8 bits for one layer after the other while there are bytes that `chosen` spent."""
        bytes_of = {name: int(self.model.get_submodule(name).weight.numel()) for name in names}
        left, found = sum(bytes_of[name] for name in names if chosen[name] == "w8a8"), {}
        for name in names:
            wide = bytes_of[name] <= left
            left -= bytes_of[name] if wide else 0
            found[name] = "w8a8" if wide else "w4a8"
        return {name: found[name] for name in chosen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_shapes", "swin_shapes"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--tests", type=int, default=4000)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the recipe")
    parser.add_argument("--shares", nargs="+", type=float, default=[0, 0.25, 0.5], help="of the way to w8a8's size")
    parser.add_argument("--naive", nargs="*", default=["first", "last"], choices=["first", "last"])
    parser.add_argument("--state", type=Path, default=Path("budgets.jsonl"))
    args = parser.parse_args()
    args.set = [f"reconstruction.images={args.images}", *args.set]
    cells = Cells(args.state)
    for seed in args.seeds:
        for name in args.models:
            with TemporaryDirectory() as folder:
                Case(name, seed, args, cells, Path(folder)).rows(args.shares)
    rows = [row for key, row in cells.done.items() if "bytes" in row and " ".join(args.set) in key]
    print("\n| model | mix | kB | top-1 % | agree % | KL |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for name in args.models:
        for label in dict.fromkeys(row["mix"] for row in rows):
            own = [row for row in rows if row["mix"] == label and row["key"].startswith(name)]
            cells_ = [told([row[figure] for row in own]) for figure in ("top-1 %", "agree %", "kl")]
            print(f"| {name} | {label} | {mean(row['bytes'] for row in own) / 1e3:.0f} | {' | '.join(cells_)} |")


def told(figures: list[float]) -> str:
    return f"{mean(figures):.4g} ({min(figures):.4g} to {max(figures):.4g})"


if __name__ == "__main__":
    main()
