"""The rest of a model around its encoder, as the judge of what an encoder's error costs.

A divergence compares what the whole model answers with what it answered in full precision. Its gradient is pulled back
through the rest, in floats, to what the encoder hands out, and from there through the encoder's own blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.detections import classes, detections
from fimaq_deploy.calibration.device import place_of
from fimaq_deploy.calibration.learning.outputs import tensors_of
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.models.factory import current_directory_importable, find_function
from fimaq_deploy.models.inside import Inside, spliced

# Of what the whole model answers in full precision, and of what it answers now: a scalar.
Whole = Callable[[Any, Any], Tensor]

_SHIPPED: dict[str, Whole] = {"detections": detections, "classes": classes}


def find_divergence(given: str | Whole | None) -> Whole | None:
    """A divergence itself, the shipped one of that name, or the function that package.module:function names.

    Raises:
        UserError: there is none.
    """
    if not isinstance(given, str):
        return given
    if given in _SHIPPED:
        return _SHIPPED[given]
    near = get_close_matches(given, _SHIPPED, 1, 0.7)
    if near:
        raise UserError(f"--divergence '{shown(given)}': did you mean '{near[0]}'?")
    with current_directory_importable():
        return find_function(given, "--divergence", f"{', '.join(_SHIPPED)} or package.module:function")


class Rest:
    """A divergence of whole answers as one of joined encoder outputs. Somebody's model may do what no device records.

    References carry the number of their image in front: `numbered`. Outputs that an encoder handed out before the ones
    that are given are the references'.
    """

    recordable = False

    def __init__(self, model: nn.Module, inside: Inside, images: Tensor, answer: Any, divergence: Whole) -> None:
        """images: the whole model's, in the order in which references are numbered. answer: of the encoder, for shapes.

        Raises:
            UserError: the divergence is no scalar of the model's answers.
        """
        device = place_of(model)
        self._images, self._divergence, self._given = images, divergence, list[Tensor]()
        self._shapes = [tensor.shape[1:] for tensor in tensors_of(answer).values()]
        # Its own numbers: no gradient is theirs. Neither this object nor the encoder is copied with them.
        kept = {id(each): each for each in (self, inside.encoder)}
        made = copy.deepcopy(spliced(model, inside, self._answer), kept)
        self._rest = made.requires_grad_(False).to(device)
        self._require_scalar(torch.cat([tensor.flatten(1) for tensor in tensors_of(answer).values()], 1).to(device))

    def _answer(self, images: Tensor) -> dict[str, Tensor]:
        return {str(number): tensor for number, tensor in enumerate(self._given)}

    def _require_scalar(self, joined: Tensor) -> None:
        first = torch.cat([joined.new_zeros(1, 1), joined[:1]], 1)
        try:
            found = self(joined[:1], first, 1.0)
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise UserError(
                f"the divergence cannot be taken of the model's answers: {type(error).__name__} {error}"
            ) from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise UserError(f"the divergence returned {type(found).__name__}: expected a tensor of one number")

    def _run(self, images: Tensor, joined: Tensor) -> Any:
        parts = joined.split([shape.numel() for shape in self._shapes], 1)
        self._given = [part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return self._rest(images)

    def __call__(self, output: Tensor, reference: Tensor, temperature: float) -> Tensor:
        index, whole = reference[:, 0].long().cpu(), reference[:, 1:]
        images = self._images[index].to(output.device)
        with torch.no_grad():
            expected = self._run(images, whole)
        missing = whole.shape[1] - output.shape[1]
        current = self._run(images, torch.cat([whole[:, :missing], output], 1) if missing else output)
        return self._divergence(expected, current)


def numbered(references: Tensor, batch: int) -> Sequence[Tensor]:
    """References (N, columns) with the number of each in front, in batches."""
    numbers = torch.arange(len(references), dtype=references.dtype, device=references.device)[:, None]
    pairs = zip(numbers.split(batch), references.split(batch), strict=True)
    return [torch.cat(pair, 1) for pair in pairs]
