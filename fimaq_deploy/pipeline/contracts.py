"""The contract that a build's files carry: what the model reads, what was measured, and what its classes are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.contract import Contract, Head, Output
from fimaq_deploy.data.class_maps import read_class_map
from fimaq_deploy.data.folder import Folder
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.families.maps import Maps
from fimaq_deploy.pipeline.heads import HEAD
from fimaq_deploy.pipeline.loaded import Loaded
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.normalisation import Normalisation
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.whole import Whole


def contract_for(request: Request, info: ModelInfo, evaluation: ImageSource, measures: Measures) -> Contract:
    """Before its files give it the names of their inputs and outputs.

    Class names are the model's own, else those of the class map, else the class folders', where they name every class.
    """
    kinds = [task.kind for task in measures.tasks.values()]
    contract = info.contract(kinds)
    return contract if contract.classes else replace(contract, classes=_names(request, info, evaluation))


def whole_contract(
    contract: Contract, whole: Whole, shape: tuple[int, int, int], reads: Normalisation | None, head: Head | None = None
) -> Contract:
    """Of the encoder's file, where it is inside of a model: what it reads there, and that it answers maps.

    shape: of what it reads. reads: what is done to the model's images on their way to it; None where it does
    not read images. head: of what stands behind it.
    """
    if whole.is_encoder:
        return contract
    family = whole.inside.family
    maps = family.outputs(whole.encoder) if isinstance(family, Maps) else ("",)
    outputs = tuple(Output(kind="dense") for _ in maps)
    direct = reads is not None
    part = replace(contract, shape=shape, outputs=outputs, classes=(), part=whole.place, direct=direct, head=head)
    if reads is not None:
        mean, std = reads.behind(contract)
        return replace(part, mean=mean, std=std)
    mean, std = (0.0,) * shape[0], (1.0,) * shape[0]
    return replace(part, resize=shape[1:], crop_mode="squash", mean=mean, std=std)


def foretold_contract(request: Request, loaded: Loaded) -> Callable[[QuantizedModel], Contract]:
    """What the file of a quantized model will say, before a head is written: what that answers is not named yet."""
    own, whole = contract_for(request, loaded.info, loaded.evaluation, loaded.measures), loaded.whole
    kind = next((task.kind for task in loaded.measures.tasks.values()), "")
    head = None if whole.is_encoder or loaded.reads is None else Head(HEAD, kind, classes=own.classes)
    return lambda quantized: whole_contract(own, whole, quantized.input_shape, loaded.reads, head)


def file_info(info: ModelInfo, contract: Contract) -> ModelInfo:
    """What the file of a build reads, where that is not what its model reads."""
    if not contract.part:
        return info
    if contract.direct:
        return replace(info, mean=contract.mean, std=contract.std)
    shape, mean, std = contract.shape, contract.mean, contract.std
    return replace(info, input_shape=shape, mean=mean, std=std, crop_pct=1.0, crop_mode=contract.crop_mode)


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
