"""A quantized model against every file that it was written to and every engine that runs here, block by block.

1. the integers of the weights are compared exactly: quantized.safetensors, model.onnx and the TensorRT twins;
2. model.onnx as written, with optimisations, and on each further target, stage by stage (`fimaq_deploy.verify.stages`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fimaq_deploy.calibration.backbone import encoder_inputs
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.data.choose import example_images
from fimaq_deploy.engines.runtimes import ONNX, REFERENCE, every_runtime, find_runtime
from fimaq_deploy.errors import UserError, within
from fimaq_deploy.export import export_onnx
from fimaq_deploy.files import write_whole
from fimaq_deploy.files.folders import settle_folder
from fimaq_deploy.manifest import MANIFEST, read_manifest
from fimaq_deploy.manifest import origin as manifest_origin
from fimaq_deploy.models.inside import describe_whole, encoder_at
from fimaq_deploy.models.load import load_model
from fimaq_deploy.models.preprocessing import Preprocessing, image_size
from fimaq_deploy.verify.stages import ParityReport, compare_stages
from fimaq_deploy.verify.stored_weights import differing_weights

QUANTIZED = "quantized.safetensors"
AS_WRITTEN = "onnx-reference"
IMAGES = 8


@dataclass(frozen=True)
class Comparison:
    """Fake-quant against one way to run a file. to: the id of that row in a build's report."""

    to: str
    file: str
    report: ParityReport


@dataclass(frozen=True)
class Outcome:
    """Everything that was compared.

    weights: by file, the weights whose integers differ from the quantized model's.
    """

    model: str
    images: int
    weights: dict[str, list[str]]
    comparisons: tuple[Comparison, ...]

    @property
    def partings(self) -> list[str]:
        """What parts, as sentences; nothing where all is well."""
        files = [f"{file}: weight {names[0]} holds other integers" for file, names in self.weights.items() if names]
        stages = [(each, each.report.first_parting) for each in self.comparisons]
        return files + [f"{each.to} parts at {stage.name}" for each, stage in stages if stage]

    def document(self) -> dict[str, Any]:
        """For programs: shares in [0, 1], null where a number is not finite or was not measured."""
        return {
            "schema": "fimaq-deploy/parity/1",
            "model": self.model,
            "images": self.images,
            "weights": self.weights,
            "partings": self.partings,
            "comparisons": [_comparison_document(each) for each in self.comparisons],
        }


def compare_files(
    quantized: QuantizedModel, folder: Path, images: Tensor, targets: Sequence[str]
) -> Iterator[Comparison]:
    """Compare the model with what a folder holds: as written, with optimisations, and on each target that is named."""
    yield Comparison(AS_WRITTEN, ONNX, compare_stages(quantized, folder / ONNX, images))
    for target in dict.fromkeys((REFERENCE, *targets)):
        file = find_runtime(target).onnx(folder)
        report = compare_stages(quantized, file, images, target, optimisations=True)
        yield Comparison(target, file.name, report)


def compare_weights(folder: Path) -> dict[str, list[str]]:
    """By ONNX file of a folder, the weights whose integers differ from those in quantized.safetensors."""
    files = [file for file in dict.fromkeys(one.onnx(folder) for one in every_runtime()) if file.is_file()]
    return {file.name: list(differing_weights(folder / QUANTIZED, file)) for file in files}


def parity(
    subject: str | Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    images: str | Path | NDArray[np.float32] | None = None,
    count: int = IMAGES,
    targets: Sequence[str] | None = None,
) -> Outcome:
    """Compare a build folder, or a quantized model that is exported for the occasion.

    subject: the folder, or the path of a `quantized.safetensors`.
    model, weights: what it was made from; None reads the report of the build.
    images: a folder, or float32 (N, C, H, W) as the quantized model reads it; None takes those that ship with the
        model, else generated ones.
    targets: None takes those of the build that run here.

    Raises:
        UserError: the subject is neither, its model is not known, or a target cannot run here.
    """
    path = Path(subject)
    within("--count", count, 1, 1_000_000)
    settle_folder(path)
    built = path if path.is_dir() else None
    file = path / QUANTIZED if built else path
    if built and (path / ONNX).is_file() and not file.is_file():
        raise UserError(
            f"{path} was built from a bare ONNX file: parity needs the PyTorch model; its report compares rows, and "
            "`verify` runs it again"
        )
    if not file.is_file():
        raise UserError(f"no quantized model {file}: name the folder of a build or its {QUANTIZED}")
    name, origin, seed, found = _origin(file.parent, model, weights)
    original = load_model(name, origin, seed=seed, **_sizes(file.parent))
    quantized = load_quantized(file, original)
    taken = _taken(original, quantized.place, name, file.parent, images, count)
    with _exported(quantized, file, built) as folder:
        wanted = targets if targets is not None else [target for target in found if _runs(target, folder)]
        return Outcome(
            model=name,
            images=len(taken),
            weights=compare_weights(folder),
            comparisons=tuple(compare_files(quantized, folder, taken, wanted)),
        )


def _taken(
    original: nn.Module,
    place: str,
    name: str,
    folder: Path,
    images: str | Path | NDArray[np.float32] | None,
    count: int,
) -> Tensor:
    """What the quantized model reads: images, or what its place inside of a model gets of them."""
    if isinstance(images, np.ndarray):
        return torch.from_numpy(images[:count])
    inside = encoder_at(original, place)
    info = describe_whole(original, inside, name, _preprocessing(folder), _sizes(folder)["image_size"])
    shown = example_images(name, info, images, count).take(count)
    return shown if not place else torch.cat(list(encoder_inputs(original, inside, [shown])))


def _sizes(folder: Path) -> dict[str, Any]:
    """The image size and channels that a build's model was made with, where they were asked for."""
    manifest = read_manifest(folder) or {}
    found = manifest.get("sizes") if isinstance(manifest.get("sizes"), dict) else {}
    size = image_size(found.get("img_size")) if found else None
    return {"image_size": size, "in_chans": found.get("in_chans") if found else None}


def _preprocessing(folder: Path) -> Preprocessing | None:
    """How the images of a build were prepared; None where it does not say."""
    found = (read_manifest(folder) or {}).get("preprocessing")
    return Preprocessing.of_build(found) if isinstance(found, dict) else None


def _origin(folder: Path, model: str | None, weights: str | None) -> tuple[str, str, int, list[str]]:
    """The model's name, its weights, the seed of the build and its targets."""
    manifest = read_manifest(folder)
    if manifest is None and model is None:
        raise UserError(f"{folder} holds no {MANIFEST} that says which model it was made from: name it with --model")
    if manifest is None:
        assert model is not None
        return model, weights or "pretrained", 0, []
    name, origin, seed, targets = manifest_origin(manifest)
    return model or name, weights or origin, seed, targets


def _runs(target: str, folder: Path) -> bool:
    runtime = find_runtime(target)
    return runtime.availability() == (None, None) and runtime.taps and runtime.onnx(folder).is_file()


@contextmanager
def _exported(quantized: QuantizedModel, file: Path, built: Path | None) -> Iterator[Path]:
    """The folder of the build, or a passing one with the files that a build would hold."""
    if built is not None:
        yield built
        return
    with TemporaryDirectory() as passing:
        folder = Path(passing)
        write_whole(folder / QUANTIZED, file.read_bytes())
        export_onnx(quantized, folder / ONNX)
        yield folder


def _comparison_document(comparison: Comparison) -> dict[str, Any]:
    report = comparison.report
    return {
        "to": comparison.to,
        "file": comparison.file,
        "judged": "integers of every quantizer" if report.as_written else "integers behind each stage",
        "agreement": report.agreement,
        "largest_output_difference": _finite(report.largest_output_difference),
        "first_parting": report.first_parting.name if report.first_parting else None,
        "stages": [
            {
                "name": stage.name,
                "largest_difference": _finite(stage.largest_difference),
                "relative_difference": _finite(stage.relative_difference),
                "differing": stage.differing_share,
                "accumulated": stage.accumulated_share,
                "largest_step": stage.flips.largest_step if stage.flips else None,
                "flipped": stage.flips.flipped if stage.flips else None,
            }
            for stage in report.stages
        ],
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
