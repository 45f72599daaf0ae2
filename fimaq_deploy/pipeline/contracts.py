"""The contract that a build's files carry: what the model reads, what was measured, and what its classes are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fimaq_deploy.contract import Contract
from fimaq_deploy.data.class_maps import read_class_map
from fimaq_deploy.data.folder import Folder
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.request import Request


def contract_for(request: Request, info: ModelInfo, evaluation: ImageSource, measures: Measures) -> Contract:
    """Before its files give it the names of their inputs and outputs.

    Class names are the model's own, else those of the class map, else the class folders', where they name every class.
    """
    kinds = [task.kind for task in measures.tasks.values()]
    contract = info.contract(kinds)
    return contract if contract.classes else replace(contract, classes=_names(request, info, evaluation))


def _names(request: Request, info: ModelInfo, evaluation: ImageSource) -> tuple[str, ...]:
    root = Path(request.eval_images) if isinstance(request.eval_images, str) else None
    if request.class_map is not None:
        return _whole(read_class_map(request.class_map, root), info.classes)
    return _whole(_folders(evaluation), info.classes) if isinstance(evaluation, Folder) else ()


def _folders(images: Folder) -> dict[str, int]:
    if images.truth is None:
        return {}
    names = [file.relative_to(images.root).parts[0] for file in images.files]
    return dict(zip(names, map(int, images.truth), strict=True))


def _whole(numbers: Mapping[str, int], classes: int) -> tuple[str, ...]:
    """Names in the order of the classes; none where one of them has no name or several."""
    names = {number: name for name, number in numbers.items()}
    return tuple(names[number] for number in range(classes)) if {*numbers.values()} == {*range(classes)} else ()
