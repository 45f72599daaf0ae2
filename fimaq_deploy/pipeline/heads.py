"""The head of a build: what stands behind its encoder, as ONNX, beside the same in PyTorch on a few images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fimaq_deploy.contract import Head as HeadFacts
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.head import Head, encoder_maps, export_head
from fimaq_deploy.pipeline.whole import Whole
from fimaq_deploy.runtime.head import HEAD, Answer, HeadRunner, differences, is_about_objects, remembered
from fimaq_deploy.runtime.replay import Replay
from fimaq_deploy.runtime.replayed import AS_WRITTEN

IMAGES = 8


@dataclass(frozen=True)
class Written:
    """facts: None where there is no head. note: of the report; empty where there is nothing behind the encoder."""

    facts: HeadFacts | None = None
    note: str = ""


def write_head(
    folder: Path, whole: Whole, size: tuple[int, int], images: Tensor, kind: str, classes: tuple[str, ...]
) -> Written:
    """Write `head.onnx`, where there is something behind the encoder that torch can write and that computes the same.

    size: (height, width) of the model's images. images: a few, as the encoder gets them.
    """
    if whole.is_encoder:
        return Written()
    path = folder / HEAD
    try:
        head = export_head(whole.model, whole.inside, size, images, path)
        told = _checked(path, whole, head, images)
    except UserError as error:
        path.unlink(missing_ok=True)
        return Written(None, f"{HEAD} was left out, and the model needs PyTorch around its encoder: {error}")
    return Written(HeadFacts(HEAD, kind, head.outputs, classes), told)


@torch.no_grad()
def _checked(path: Path, whole: Whole, head: Head, images: Tensor) -> str:
    """The file beside PyTorch, on what the original encoder hands out.

    Raises:
        UserError: they differ by more than rounding.
    """
    run, own, there = HeadRunner(path), list[Answer](), list[Answer]()
    for image in images.split(1):
        maps = encoder_maps(whole.inside, image)
        found = head(*maps.values())
        there.append(remembered({name: one.numpy() for name, one in zip(head.outputs, found, strict=True)}))
        own += map(remembered, run({name: one.numpy() for name, one in maps.items()}))
    for line in differences(own, there):
        raise UserError(f"it does not compute what PyTorch does: {line}")
    objects = sum(len(one["scores"]) for one in there if is_about_objects(one))
    what = f"all {objects} objects" if objects else "answers"
    return (
        f"{HEAD} is what stands behind the encoder, in floats: of {len(images)} images {what} are those of PyTorch, "
        "so that Detector and Segmenter need no torch"
    )


def with_head(replay: Replay, folder: Path, facts: HeadFacts | None) -> Replay:
    """A replay with what the head makes of the maps that the file as written gives of its images."""
    if facts is None or AS_WRITTEN not in replay.rows:
        return replay
    answers = HeadRunner(folder / facts.file)(replay.rows[AS_WRITTEN])
    return replace(replay, answers=tuple(map(remembered, answers)))
