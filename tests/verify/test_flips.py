"""Integers beside integers: those of a stage's quantizers, and those that the next stage would make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.layers import activation_quantizers
from fimaq_deploy.verify.flips import Flips, Forced, flips_behind


def test_where_no_quantizer_follows_eight_bits_over_the_range_stand_in() -> None:
    ours = torch.tensor([-127.0, 0.2, 10.4, 127.0])
    assert flips_behind(None, ours, ours) == Flips(0, 0.0, 0.0)
    assert flips_behind(None, ours, ours + torch.tensor([0.0, 1.0, 0.0, -2.0])) == Flips(2, 0.5, 0.25)


def test_what_is_not_finite_has_no_steps() -> None:
    ours = torch.tensor([1.0, 2.0])
    assert flips_behind(None, ours, ours * float("nan")) is None


def test_the_next_quantizer_judges_what_is_handed_on(folder: tuple[Path, Any], images: Tensor) -> None:
    _, model = folder
    first, second = model.stages[:2]
    with torch.no_grad():
        tokens = first.module(images)
        found = flips_behind(second, tokens, -tokens)
        shifted = flips_behind(second, tokens, tokens + 1)
    assert flips_behind(second, tokens, tokens) == Flips(0, 0.0, 0.0)
    assert found is not None and found.flipped > 0.5, "what it reads is the other way round"
    assert shifted is not None and shifted.flipped < 0.01, "its norm takes a constant away"


@pytest.mark.parametrize("turned", [False, True])
def test_a_stage_goes_on_with_the_integers_of_the_other_side(
    folder: tuple[Path, Any], images: Tensor, turned: bool
) -> None:
    """In whichever layout the other side keeps them, as of k behind its transpose."""
    _, model = folder
    first, second = model.stages[:2]
    name, quantizer = next((n, q) for n, q in activation_quantizers(model.model) if n.startswith("blocks.0."))
    seen: list[Tensor] = []
    handle = quantizer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        tokens = first.module(images)
        plain = second.module(tokens)
        handle.remove()
        span = quantizer.span
        own = (seen[0] / quantizer.scale).round().add(span.zero_point).clamp(span.low, span.high)
        other = own.clone()
        other[0, 0, 0] += 1 if own[0, 0, 0] < span.high else -1
        for integers, expected in ((own, Flips(0, 0.0, 0.0)), (other, Flips(1, 1 / own.numel(), 0.0))):
            written = integers.transpose(-2, -1) if turned else integers
            y, found = Forced(model, {name: np.ascontiguousarray(written.numpy())})(second.module, tokens)
            assert found == expected
            assert torch.equal(y, plain) == (integers is own)
