"""What a model with an encoder inside answers about one blank image, where nothing else says what it answers at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.models.detectors import is_detection

_SCORES = "logits"


@dataclass(frozen=True)
class Trial:
    """answer: the model's; None where it failed. scores: classes that torchvision's box predictor scores, if it ran."""

    answer: Any = None
    scores: int | None = None

    @property
    def about_places(self) -> bool:
        """Whether it is about places in the image, such as objects or the class of each pixel, and not one vector."""
        return self.answer is None or is_detection(self.answer) or any(one.ndim > 2 for one in _tensors(self.answer))

    @property
    def labels(self) -> range | None:
        """Those that objects can get, by how many classes are scored: of queries, or of torchvision's boxes, whose
        first class is the background. None where it does not show.
        """
        if not is_detection(self.answer):
            return None
        if self.scores is not None:
            return range(1, self.scores)
        logits = self.answer.get(_SCORES) if isinstance(self.answer, Mapping) else getattr(self.answer, _SCORES, None)
        return range(logits.shape[-1]) if isinstance(logits, Tensor) else None


@torch.no_grad()
def try_out(model: nn.Module, shape: tuple[int, int, int]) -> Trial:
    """Of an image (C, H, W) of zeros. A model that cannot take it says so where it matters, in a build's first step."""
    seen: list[int] = []
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    hook = predictor.register_forward_hook(lambda *call: seen.extend(_widths(call[2]))) if predictor else None
    try:
        weight = next(model.parameters())
        return Trial(model(torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device)), *seen[:1])
    except Exception:  # somebody's code: it may refuse whatever it likes
        return Trial()
    finally:
        if hook is not None:
            hook.remove()


def _widths(found: Any) -> Iterator[int]:
    first = found[0] if isinstance(found, (tuple, list)) and found else found
    if isinstance(first, Tensor) and first.ndim == 2:
        yield first.shape[1]


def _tensors(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, Mapping):
        yield from (each for one in answer.values() for each in _tensors(one))
    elif isinstance(answer, Sequence) and not isinstance(answer, (str, bytes)):
        yield from (each for one in answer for each in _tensors(one))
