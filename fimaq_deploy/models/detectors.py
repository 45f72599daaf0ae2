"""What detectors answer, as arrays of one size: boxes, scores, labels and, where there are any, masks of each image.

| answer | of |
|---|---|
| a list with a dictionary an image | torchvision's detection models |
| `logits` and `pred_boxes` | DETR, RT-DETR, Deformable and Conditional DETR, YOLOS and their kind of transformers |
| a dictionary of such arrays already | anything else, by the user's own code |

Labels stay what the model calls them: torchvision's count from 1, behind the background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError

MOST = 100
"""Objects of an image that are kept, the surest ones, where the model does not say how many it gives."""

Objects: TypeAlias = "dict[str, Tensor]"
_KEYS = ("boxes", "scores", "labels")
_QUERIES = ("logits", "pred_boxes")


def is_detection(answer: Any) -> bool:
    """Whether `arranged` understands it."""
    return _is_listed(answer) or all(_entry(answer, name) is not None for name in _QUERIES) or _is_arranged(answer)


def arranged(answer: Any, size: tuple[int, int], *, most: int = MOST, labels: int | None = None) -> Objects:
    """Boxes float32 (N, D, 4), left, top, right and bottom in pixels, scores float32 (N, D), labels int64 (N, D) and,
    where there are any, masks bool (N, D, H, W). The surest object comes first; an empty place has score 0, label -1.

    size: (height, width) of the images, for boxes that are shares of it. most: D of a list of dictionaries; of queries
        D is their number. labels: how many the model tells apart; one logit more is that of no object.

    Raises:
        UserError: the answer is none of the table's.
    """
    if _is_listed(answer):
        return _listed(answer, most)
    if _is_arranged(answer):
        return {name: torch.as_tensor(answer[name]) for name in (*_KEYS, "masks") if answer.get(name) is not None}
    logits, boxes = (_entry(answer, name) for name in _QUERIES)
    if logits is None or boxes is None:
        raise UserError(
            f"the model answers a {type(answer).__name__}: expected a list of dictionaries with boxes, scores and "
            "labels, logits with pred_boxes, or boxes, scores and labels as arrays"
        )
    return _of_queries(logits.detach().float(), boxes.detach().float(), size, labels)


class Arranged(nn.Module):
    """A model whose answer about objects comes as `arranged` has it; any other answer comes as it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.most, self.labels = objects_of(model), labels_of(model)

    def forward(self, images: Tensor) -> Any:
        """Images (N, C, H, W)"""
        answer = self.model(images)
        if not is_detection(answer):
            return answer
        height, width = images.shape[-2:]
        return arranged(answer, (height, width), most=self.most, labels=self.labels)


def objects_of(model: nn.Module) -> int:
    """How many objects of an image a model of torchvision gives at most."""
    for holder in (getattr(model, "roi_heads", None), model):
        found = getattr(holder, "detections_per_img", None)
        if isinstance(found, int):
            return found
    return MOST


def labels_of(model: nn.Module) -> int | None:
    """How many classes a model of transformers says that it tells apart."""
    found = getattr(getattr(model, "config", None), "num_labels", None)
    return found if isinstance(found, int) else None


def label_range(model: nn.Module) -> range | None:
    """The labels that objects can get: of `transformers` from 0 on, of torchvision without the background where the
    model counts it as label 0. None where the model is neither, or does not say."""
    if (count := labels_of(model)) is not None:
        return range(count)
    boxes = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    if isinstance(count := getattr(getattr(boxes, "cls_score", None), "out_features", None), int):
        return range(1, count)
    head = getattr(getattr(model, "head", None), "classification_head", None)
    if isinstance(count := getattr(head, "num_classes", None), int):  # RetinaNet and FCOS: no background
        return range(count)
    if isinstance(count := getattr(head, "num_columns", None), int):  # SSD
        return range(1, count)
    return None


def _is_listed(answer: Any) -> bool:
    listed = isinstance(answer, Sequence) and not isinstance(answer, (str, bytes)) and len(answer) > 0
    return listed and all(isinstance(each, Mapping) and all(key in each for key in _KEYS) for each in answer)


def _is_arranged(answer: Any) -> bool:
    return isinstance(answer, Mapping) and all(getattr(answer.get(key), "ndim", 0) >= 2 for key in _KEYS)


def _entry(answer: Any, name: str) -> Tensor | None:
    found = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
    return found if isinstance(found, Tensor) else None


def _listed(answer: Sequence[Mapping[str, Tensor]], most: int) -> Objects:
    """Each image's objects by falling score, filled up with nothing."""
    ordered = [_surest(one, most) for one in answer]
    found = {
        "boxes": torch.stack([_filled(one["boxes"].detach().float(), most) for one in ordered]),
        "scores": torch.stack([_filled(one["scores"].detach().float(), most) for one in ordered]),
        "labels": torch.stack([_filled(one["labels"].detach().long(), most, -1) for one in ordered]),
    }
    if all("masks" in one for one in ordered):
        found["masks"] = torch.stack([_filled(_as_bits(one["masks"]), most) for one in ordered])
    return found


def _surest(one: Mapping[str, Tensor], most: int) -> dict[str, Tensor]:
    order = one["scores"].argsort(descending=True, stable=True)[:most]
    return {name: one[name][order] for name in (*_KEYS, "masks") if name in one}


def _as_bits(masks: Tensor) -> Tensor:
    """(objects, H, W), from probabilities or bits, with a channel as torchvision has it or without."""
    masks = masks.detach()
    bits = masks > 0.5 if masks.is_floating_point() else masks > 0
    return bits[:, 0] if bits.ndim == 4 else bits


def _filled(rows: Tensor, most: int, empty: int = 0) -> Tensor:
    missing = rows.new_full((most - len(rows), *rows.shape[1:]), empty)
    return torch.cat([rows, missing])


def _of_queries(logits: Tensor, boxes: Tensor, size: tuple[int, int], labels: int | None) -> Objects:
    """As transformers post-processes them: with a logit for no object the best label of each query, without one the
    surest pairs of query and label."""
    height, width = size
    centre, extent = boxes[..., :2], boxes[..., 2:]
    corners = torch.cat([centre - extent / 2, centre + extent / 2], -1)
    corners = corners * corners.new_tensor([width, height, width, height])
    queries, scores = logits.shape[1], logits.sigmoid()
    if labels is not None and logits.shape[-1] == labels + 1:
        scores = logits.softmax(-1)[..., :-1]
        best, kinds = scores.max(-1)
        best, order = best.sort(dim=1, descending=True, stable=True)
        kinds = kinds.gather(1, order)
    else:
        best, flat = scores.flatten(1).topk(queries, 1)
        kinds, order = flat % logits.shape[-1], flat // logits.shape[-1]
    return {"boxes": corners.gather(1, order[..., None].expand(-1, -1, 4)), "scores": best, "labels": kinds}
