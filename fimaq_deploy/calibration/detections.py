"""How far a detector's answers are from those that it gave in full precision: classes and boxes of the same objects.

Of queries (logits and pred_boxes, as DETR and its kind answer): for every query the divergence of each class's
probability, and the smooth distance of its box, weighted by how sure the original is of it. Of lists (boxes, scores and
labels, as torchvision answers): for every object of the original the one of the same label that overlaps most, by its
score and its box; one that is gone costs what it was sure of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fimaq_deploy.errors import UserError

_BOXES = 5.0  # of boxes beside classes, as DETR weighs them
_OVERLAP = 0.3  # below which an object is another one
_TINY = 1e-6


def detections(reference: Any, answer: Any) -> Tensor:
    """A scalar, zero where both are the same.

    Raises:
        UserError: the model answers neither queries nor lists of objects.
    """
    if isinstance(reference, Sequence) and all(isinstance(each, Mapping) for each in reference):
        pairs = zip(reference, answer, strict=True)
        return torch.stack([_listed(ours, theirs) for ours, theirs in pairs]).mean()
    found = [_entry(each, name) for each in (reference, answer) for name in ("logits", "pred_boxes")]
    if not all(isinstance(each, Tensor) for each in found):
        raise UserError(
            f"divergence 'detections': the model answers a {type(reference).__name__}, expected logits and pred_boxes, "
            "or a list of boxes, scores and labels"
        )
    return _queries(*found)


def classes(reference: Any, answer: Any) -> Tensor:
    """The divergence of class probabilities, of class logits (N, K, ...): a segmenter's mean over pixels.

    Raises:
        UserError: the model answers no such tensor, nor one as `logits`.
    """
    found = [each if isinstance(each, Tensor) else _entry(each, "logits") for each in (reference, answer)]
    if not all(isinstance(each, Tensor) and each.ndim > 1 for each in found):
        raise UserError(
            f"divergence 'classes': the model answers a {type(reference).__name__}, expected class logits (N, K, ...)"
        )
    ours, theirs = (each.log_softmax(1) for each in found)
    return (ours.exp() * (ours - theirs)).sum(1).mean()


def _entry(answer: Any, name: str) -> Any:
    return answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)


def _queries(logits: Tensor, boxes: Tensor, own_logits: Tensor, own_boxes: Tensor) -> Tensor:
    p = logits.sigmoid()
    # Of one class: p log(p/q) + (1-p) log((1-p)/(1-q)), from logits.
    kl = p * (F.logsigmoid(logits) - F.logsigmoid(own_logits))
    kl = kl + (1 - p) * (F.logsigmoid(-logits) - F.logsigmoid(-own_logits))
    sure = p.amax(-1)
    away = F.smooth_l1_loss(own_boxes, boxes, reduction="none", beta=0.1).sum(-1)
    return kl.sum(-1).mean() + _BOXES * (sure * away).mean()


def _listed(reference: Mapping[str, Tensor], answer: Mapping[str, Tensor]) -> Tensor:
    boxes, own = reference["boxes"], answer["boxes"]
    if not len(boxes):
        return answer["scores"].square().sum()
    if not len(own):
        return reference["scores"].square().sum()
    same = reference["labels"][:, None] == answer["labels"][None]
    overlap, match = (_overlaps(boxes, own.detach()) * same).max(1)
    there, scores = overlap > _OVERLAP, reference["scores"]
    by_score = (scores - torch.where(there, answer["scores"][match], 0)).square()
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2).clamp(min=_TINY)
    away = F.smooth_l1_loss(own[match] / sides, boxes / sides, reduction="none", beta=0.1).sum(1)
    return (by_score + scores * there * away).sum() / len(boxes)


def _overlaps(ours: Tensor, theirs: Tensor) -> Tensor:
    """Intersection over union, (ours, theirs)."""
    top = torch.maximum(ours[:, None, :2], theirs[None, :, :2])
    bottom = torch.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    common = (bottom - top).clamp(min=0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).clamp(min=0).prod(-1) for each in (ours, theirs)]
    return common / (areas[0][:, None] + areas[1][None] - common).clamp(min=_TINY)
