"""The images that the rows of a build are measured on, and the bank that they are judged by where there is one."""

from __future__ import annotations

from pathlib import Path

from fimaq_deploy.data.banks import bank_source, classes_of
from fimaq_deploy.data.choose import evaluation_source
from fimaq_deploy.data.class_maps import ClassMap
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline.request import Request


def evaluation_and_bank(
    request: Request, info: ModelInfo, calibration: ImageSource
) -> tuple[ImageSource, ImageSource | None]:
    """The images to measure on, and the labelled ones to judge by, None where nobody gave any.

    Raises:
        UserError: images that are refused, or labels that are not theirs.
    """
    said, bank = info, None
    class_map: ClassMap | str | Path | None = request.class_map
    if request.bank is not None:
        bank = bank_source(request.bank, info, class_map=request.class_map, maps=request.bank_maps)
        if request.bank_maps is None:
            said, class_map = classes_of(request.bank, info, request.class_map)
    evaluation = evaluation_source(
        request.model,
        said,
        calibration,
        images=request.eval_images,
        own_calibration=request.images is not None,
        class_map=class_map,
        coco=request.eval_coco,
        maps=request.eval_maps,
    )
    return evaluation, bank
