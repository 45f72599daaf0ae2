"""Does a budget choose better than a preset? `--recipe auto` beside uniform and naive mixes of equal size.

    python benchmarks/budgets.py --state cells.jsonl
    python benchmarks/budgets.py --models vit_shapes --seeds 0 --images 128 --state cells.jsonl
    python benchmarks/budgets.py --state cells.jsonl --only-told

For each seed: the preset w4a8, others if asked, and `auto` with sizes between those of w4a8 (patch embedding and head
in 8 bits) and w8a8. Beside each of these stand mixes of the same budget that nobody measured for: 8 bits for the first,
the last, or random layers of the model as far as the bytes go. Every row learns alike; figures are those of model.onnx
in ONNX Runtime on test images, of which the generator draws any number. What each image came to is kept, so that
differences are paired.

Each finished row is a line of --state at once, with its images in the folder beside it, and is not computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from cells import keep, kept
from numpy.typing import NDArray

import fimaq_deploy as fd
from fimaq_deploy.calibration.mixing.options import FORMATS
from fimaq_deploy.calibration.quantizers.layers import quantized_layers
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.export import export_fp_onnx, export_onnx
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.pipeline.budgets import Search
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.report.comparison.statistics import Pairs, mcnemar, paired_interval

TARGET = "onnxruntime-cpu"
FIGURES = {"top-1 %": "right", "agree %": "same", "kl": "kl"}
RANDOM = ("random a", "random b", "random c")
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 8: 2.306, 11: 2.201, 17: 2.110}  # Student's, by freedom
Row = dict[str, Any]
Images = dict[str, NDArray[Any]]


class Cells:
    """Rows that are done, by name, in a file of lines; what each image came to, in files of a folder beside it."""

    def __init__(self, path: Path) -> None:
        self.path, self.done = path, {row["key"]: row for row in kept(path)}
        self.folder = path.with_suffix("")
        self.folder.mkdir(parents=True, exist_ok=True)

    def of(self, key: str, compute: Callable[[], Row]) -> Row:
        if key not in self.done:
            self.done[key] = {"key": key, **compute()}
            keep(self.path, self.done[key])
            shown = {name: value for name, value in self.done[key].items() if not isinstance(value, dict)}
            print(shown, flush=True)
        return self.done[key]

    def images_file(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"

    def images(self, key: str) -> Images:
        """What each test image of a row came to."""
        with np.load(self.images_file(key)) as found:
            return dict(found)


class Tests:
    """Test images of a model with its own answers."""

    def __init__(self, name: str, count: int, folder: Path) -> None:
        self.images: ImageSource = bundled_images(BUNDLED[name].task, "test", count)
        self.labels = np.concatenate([batch.labels for batch in self.images.batches() if batch.labels is not None])
        self.own = self.outputs(export_fp_onnx(fd.load_model(name), folder / "original.onnx", target=TARGET))

    def outputs(self, file: Path) -> NDArray[np.float32]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return np.concatenate([session.run(None, {name: one.images.numpy()})[0] for one in self.images.batches(50)])

    def of(self, file: Path) -> Images:
        found = self.outputs(file)
        answers, own, logs = found.argmax(1), self.own.argmax(1), log_softmax(self.own)
        kl = (np.exp(logs) * (logs - log_softmax(found))).sum(1)
        return {"right": answers == self.labels, "same": answers == own, "kl": kl.astype(np.float32)}


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


class Case:
    """A model and a seed."""

    def __init__(
        self, name: str, seed: int, tests: Tests, args: argparse.Namespace, cells: Cells, folder: Path
    ) -> None:
        self.name, self.seed, self.tests, self.args = name, seed, tests, args
        self.cells, self.folder = cells, folder
        self.key = case_key(name, seed, args)
        self.model = fd.load_model(name)
        self.images = bundled_images(BUNDLED[name].task, "calibration", 2048)

    def preset(self, name: str) -> fd.Recipe:
        return fd.Recipe.load(name).with_settings(self.args.set)

    def quantized(self, recipe: fd.Recipe) -> fd.QuantizedModel:
        return fd.quantize(self.model, self.images, recipe, TARGET, seed=self.seed)

    def measured(self, label: str, recipe: fd.Recipe, layers: dict[str, str] | None = None) -> Row:
        """Learned, written and measured. layers: formats that replace the recipe's own."""
        key = f"{self.key}: {label}"

        def compute() -> Row:
            quantized = self.quantized(recipe if layers is None else with_formats(recipe, layers))
            file = self.folder / f"{label}.onnx".replace(" ", "-")
            export_onnx(quantized, file, target=TARGET)
            found = self.tests.of(file)
            np.savez(self.cells.images_file(key), right=found["right"], same=found["same"], kl=found["kl"])
            weights = {name: layer.q_weight.numel() for name, layer in quantized_layers(quantized.model)}
            figures = {
                figure: (1 if figure == "kl" else 100) * float(found[at].mean()) for figure, at in FIGURES.items()
            }
            return {"mix": label, "bytes": file.stat().st_size, **figures, "formats": layers or {}, "weights": weights}

        return self.cells.of(key, compute)

    def size(self, label: str, recipe: fd.Recipe) -> int:
        """What a file takes, of a model that has not learned."""

        def compute() -> Row:
            unlearned = ("reconstruction.iterations=0", "tuning.iterations=0", "reconstruction.images=16")
            file = self.folder / "unlearned.onnx"
            export_onnx(self.quantized(recipe.with_settings(unlearned)), file, target=TARGET)
            return {"mix": label, "size": file.stat().st_size}

        return int(self.cells.of(f"{self.key}: {label}, not learned", compute)["size"])

    def chosen(self, label: str, budget: float) -> Row:
        """What `--recipe auto` chooses for so many bytes."""

        def compute() -> Row:
            request = Request.of(
                self.name,
                recipe="auto",
                settings=self.args.set,
                targets=TARGET,
                size_budget=budget / 1e6,
                seed=self.seed,
            )
            state = self.folder / label
            for uniform in self.folder.glob("*/w?a8-*"):  # what every choice begins with
                shutil.copytree(uniform, state / uniform.name, dirs_exist_ok=True)
            search = Search(request, self.model, self.images, self.images, Measures({}), state, lambda *_: None)
            mix = search.run()
            record = mix.model_dump(include={"chosen", "probes"})
            return {"mix": label, "budget": budget, "formats": mix.formats, "losses": mix.losses, "record": record}

        return self.cells.of(f"{self.key}: choice of {label}", compute)

    def rows(self) -> None:
        base = self.preset("w4a8")
        smallest = self.measured("w4a8", base)
        weights = smallest["weights"]
        narrow = self.size("4 bits everywhere", with_formats(base, dict.fromkeys(weights, "w4a8")))
        largest = self.size("w8a8", self.preset("w8a8"))
        beside = (narrow - largest + sum(weights.values()) / 2) / len(
            weights
        )  # nodes of 4 bits less those of 8, a layer
        more = {name: weights[name] / 2 - beside for name in weights}
        for share in self.args.shares:
            budget = smallest["bytes"] + share * (largest - smallest["bytes"])
            if not self.args.no_auto:
                formats = self.chosen(f"auto {share:g}", budget)["formats"]
                self.measured(f"auto {share:g}", base, formats)
            for which in self.args.naive:
                formats = naive(ordered(which, list(weights), self.seed), more, budget - narrow)
                self.measured(f"{which} layers {share:g}", base, {name: formats[name] for name in weights})
        for name in self.args.presets:
            self.measured(name, self.preset(name))


def case_key(name: str, seed: int, args: argparse.Namespace) -> str:
    return " ".join([name, f"seed {seed}", f"{args.tests} tests", *args.set])


def with_formats(recipe: fd.Recipe, formats: dict[str, str]) -> fd.Recipe:
    return recipe.replace(layers={name: FORMATS[one].model_dump() for name, one in formats.items()})


def ordered(which: str, names: list[str], seed: int) -> list[str]:
    """The layers in the order in which they get 8 bits; every seed has other random ones."""
    if which in RANDOM:
        return [str(name) for name in np.random.RandomState(10 * seed + RANDOM.index(which)).permutation(names)]
    return names[:: -1 if which == "last" else 1]


def naive(names: list[str], more: dict[str, float], spare: float) -> dict[str, str]:
    """8 bits for one layer after the other as far as so many bytes go. more: what that takes of a layer."""
    found = {}
    for name in names:
        found[name] = "w8a8" if more[name] <= spare else "w4a8"
        spare -= more[name] if more[name] <= spare else 0
    return found


def told(figures: list[float]) -> str:
    return f"{mean(figures):.4g} ({min(figures):.4g} to {max(figures):.4g})"


class Told:
    """The tables of the rows that there are."""

    def __init__(self, cells: Cells, args: argparse.Namespace) -> None:
        self.cells, self.args = cells, args

    def row(self, name: str, seed: int, label: str) -> Row | None:
        return self.cells.done.get(f"{case_key(name, seed, self.args)}: {label}")

    def figures(self) -> None:
        print(
            "\n| model | mix | seeds | kB | top-1 % | agree % | KL |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |"
        )
        labels = dict.fromkeys(row["mix"] for row in self.cells.done.values() if "bytes" in row)
        for name, label in product(self.args.models, labels):
            own = [row for seed in self.args.seeds if (row := self.row(name, seed, label))]
            if own:
                parts = [told([row[figure] for row in own]) for figure in FIGURES]
                size = mean(row["bytes"] for row in own) / 1e3
                print(f"| {name} | {label} | {len(own)} | {size:.1f} | {' | '.join(parts)} |")

    def differences(self) -> None:
        """`auto` less each other mix of its budget, of the same images: over images, and over models and seeds.

        McNemar's test takes the answers of all seeds together, though their images are the same.
        """
        print(
            "\n| models | auto less | figure | difference | 95 % over images | 95 % over models and seeds | McNemar |"
        )
        print("| --- | --- | --- | ---: | --- | --- | ---: |")
        groups = dict.fromkeys([*((name,) for name in self.args.models), tuple(self.args.models)])
        kinds = dict.fromkeys("random" if one in RANDOM else one for one in self.args.naive)
        others = [*(f"{one} layers" for one in kinds), "w4a8", *self.args.presets]
        for models, share, other in product(groups, self.args.shares, others):
            pairs = [self._pair(name, seed, share, other) for name in models for seed in self.args.seeds]
            done = [pair for pair in pairs if pair is not None]
            if len(done) == len(pairs):
                self._differ(" and ".join(models), f"{other}, {share:g}", done, len(models))

    def _pair(self, name: str, seed: int, share: float, other: str) -> tuple[Images, list[Images]] | None:
        random = [f"{one} layers" for one in RANDOM if one in self.args.naive]
        labels = random if other == "random layers" else [other]
        labels = [f"{label} {share:g}" if "layers" in label else label for label in labels]
        rows = [self.row(name, seed, label) for label in (f"auto {share:g}", *labels)]
        if any(row is None for row in rows):
            return None
        own, *theirs = [self.cells.images(row["key"]) for row in rows if row]
        return own, theirs

    def _differ(self, models: str, other: str, pairs: list[tuple[Images, list[Images]]], several: int) -> None:
        for figure, at in FIGURES.items():
            factor = 1e3 if figure == "kl" else 100
            apart = [own[at] - np.mean([one[at] for one in theirs], 0) for own, theirs in pairs]
            # The same images with every seed, other ones for other models: a row an image, means of seeds.
            by_image = np.concatenate([np.mean(one, 0) for one in np.split(np.array(apart), several)])
            low, high = paired_interval(by_image, np.zeros_like(by_image)) or (float("nan"),) * 2
            each = [factor * float(one.mean()) for one in apart]
            over = (
                "" if len(each) < 2 else told_interval(mean(each), T95[len(each) - 1] * stdev(each) / len(each) ** 0.5)
            )
            chance = ""
            if at == "right" and len(pairs[0][1]) == 1:
                ours = sum(int((own[at] & ~theirs[0][at]).sum()) for own, theirs in pairs)
                others = sum(int((theirs[0][at] & ~own[at]).sum()) for own, theirs in pairs)
                chance = f"{mcnemar(Pairs(0, ours, others, 0)):.2g} ({ours} to {others})"
            unit = "KL × 1000" if figure == "kl" else figure
            images = f"{factor * low:.3f} to {factor * high:.3f}"
            print(f"| {models} | {other} | {unit} | {mean(each):.3f} | {images} | {over} | {chance} |")


def told_interval(middle: float, half: float) -> str:
    return f"{middle - half:.3f} to {middle + half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_shapes", "swin_shapes"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--tests", type=int, default=50_000, help="test images")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the recipe")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.25], help="of the way to w8a8's size")
    parser.add_argument("--presets", nargs="*", default=[], help="beside w4a8")
    kinds = ["first", "last", *RANDOM]
    parser.add_argument("--naive", nargs="*", default=kinds, choices=kinds)
    parser.add_argument("--no-auto", action="store_true", help="only the rows beside it")
    parser.add_argument("--only-told", action="store_true", help="only the tables of rows that are done")
    parser.add_argument("--state", type=Path, default=Path("budgets.jsonl"))
    args = parser.parse_args()
    args.set = [f"reconstruction.images={args.images}", *args.set]
    cells = Cells(args.state)
    for name in [] if args.only_told else args.models:
        with TemporaryDirectory() as folder:
            tests = Tests(name, args.tests, Path(folder))
            for seed in args.seeds:
                own = Path(folder) / str(seed)
                own.mkdir()
                Case(name, seed, tests, args, cells, own).rows()
    tables = Told(cells, args)
    tables.figures()
    tables.differences()


if __name__ == "__main__":
    main()
