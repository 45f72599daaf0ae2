"""Whether two builds can be compared, and what is not the same in both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fimaq_deploy.errors import UserError
from fimaq_deploy.report.comparison.builds import Build
from fimaq_deploy.report.comparison.records import Change
from fimaq_deploy.report.predictions import Predictions
from fimaq_deploy.report.schema import Data, Report


def require_comparable(new: Build, baseline: Build) -> None:
    """Refuse builds of different models, or that were evaluated on different images.

    Raises:
        UserError: names both.
    """
    ours, theirs = (build.report.model.model_copy(update={"weights": ""}) for build in (new, baseline))
    if ours != theirs:
        raise UserError(
            f"{baseline.name} is a build of {_model_text(baseline)} and {new.name} of {_model_text(new)}: "
            "name builds of one model"
        )
    mine, other = new.report.data, baseline.report.data
    if not _same_images(new, baseline):
        raise UserError(
            f"{baseline.name} was evaluated on other images ({_images_text(other)}) "
            f"than {new.name} ({_images_text(mine)}): build one of them again"
        )
    if not _same_labels(new, baseline):
        raise UserError(
            f"{baseline.name} was evaluated with other labels ({_labels_text(other)}) of the same images than "
            f"{new.name} ({_labels_text(mine)}), such as other annotations, maps or classes: build one of them again"
        )


def same_hardware(new: Build, baseline: Build) -> bool:
    return _hardware(new.report) == _hardware(baseline.report)


def hardware_text(build: Build) -> str:
    cpu, cores, gpu = _hardware(build.report)
    return f"{gpu or cpu}, {cores} cores"


def changes(new: Build, baseline: Build) -> Iterator[Change]:
    """Every fact that is not the same in both."""
    ours, theirs = _facts(new.report), _facts(baseline.report)
    for name in dict.fromkeys((*ours, *theirs)):
        if ours.get(name) != theirs.get(name):
            yield Change(name=name, new=ours.get(name, "none"), baseline=theirs.get(name, "none"))


def labels_unseen(new: Build, baseline: Build) -> bool:
    """Whether labels were used that nothing compares: older builds kept no fingerprint of objects and maps."""
    mine, other = new.report.data, baseline.report.data
    numbers = all(one.predictions is not None and one.predictions.labels is not None for one in (new, baseline))
    return mine.labelled and other.labelled and None in (mine.labels_sha256, other.labels_sha256) and not numbers


def _same_images(new: Build, baseline: Build) -> bool:
    """By their fingerprints; where a build kept none, by what the reports say of the images."""
    ours, theirs = new.predictions, baseline.predictions
    if ours and theirs:
        return ours.images == theirs.images
    mine, other = new.report.data, baseline.report.data
    if mine.images_sha256 and other.images_sha256:
        return mine.images_sha256 == other.images_sha256
    return _images_text(mine) == _images_text(other)


def _same_labels(new: Build, baseline: Build) -> bool:
    """By their fingerprints, and as they are where both builds kept them."""
    ours, theirs = new.predictions, baseline.predictions
    if ours and theirs and not np.array_equal(_labels(ours), _labels(theirs)):
        return False
    mine, other = new.report.data.labels_sha256, baseline.report.data.labels_sha256
    return None in (mine, other) or mine == other


def _images_text(data: Data) -> str:
    text = f"{data.evaluation_images} from {data.evaluation}"
    return f"{text}, with a bank of {data.bank}" if data.bank else text


def _labels_text(data: Data) -> str:
    return "none" if not data.labelled else f"sha256 {data.labels_sha256[:12]}" if data.labels_sha256 else "as numbers"


def _labels(predictions: Predictions) -> Any:
    return () if predictions.labels is None else predictions.labels


def _model_text(build: Build) -> str:
    model = build.report.model
    size = "×".join(map(str, model.input_shape))
    return f"{model.name} ({size} inputs, {model.classes} classes, {model.parameters} parameters)"


def _hardware(report: Report) -> tuple[str, int, str | None]:
    return report.environment.cpu, report.environment.cores, report.environment.gpu


def _facts(report: Report) -> dict[str, str]:
    """What may differ between two builds of one model on the same images."""
    machine, data = report.environment, report.data
    return {
        "weights": report.model.weights,
        "calibration": f"{data.calibration_images} images, {data.calibration}",
        "measured as": ", ".join(f"{output.name}: {output.task}" for output in report.outputs) or "classes",
        "seed": str(report.seed),
        **{f"recipe: {name}": value for name, value in _flat(report.recipe)},
        "processor": machine.cpu,
        "cores": str(machine.cores),
        "GPU": machine.gpu or "none",
        "driver": machine.driver or "none",
        "system": machine.platform,
        "Python": machine.python,
        **machine.packages,
    }


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
