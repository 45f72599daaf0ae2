"""A mix is looked at again among all layers, and the better of both is taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fimaq_deploy.calibration.findings.sensitivity import Sensitivity
from fimaq_deploy.calibration.mixing.front import Mix
from fimaq_deploy.calibration.mixing.mixes import corrected, outputs_loss, settled
from fimaq_deploy.calibration.mixing.options import Option


def options(**losses: float) -> dict[str, tuple[Option, ...]]:
    return {name: (Option("w4a8", 4, loss), Option("w8a8", 8, 0.0)) for name, loss in losses.items()}


def searched(**spared: float) -> Any:
    """What `settled` reads of a model with searched scales: what each layer costs among the others, alone it is 1."""
    return SimpleNamespace(sensitivity=[Sensitivity(name, "layer", 1.0, one) for name, one in spared.items()])


def learn(formats: dict[str, str]) -> Any:
    return formats


def bits(option: Option) -> int:
    return option.bits


def test_what_costs_more_among_others_is_spared_instead() -> None:
    """Alone a costs more than b, in the model b costs three times as much as alone, and only one may have 8 bits."""
    found = options(a=1.0, b=0.9)
    judgements = iter([torch.tensor([0.4, 0.6]), torch.tensor([0.15, 0.35])])
    tried = settled(found, bits, 12, lambda _: searched(a=1.0, b=3.0), learn, lambda _: next(judgements))
    assert [one.mix.formats for one in tried] == [{"a": "w8a8", "b": "w4a8"}, {"a": "w4a8", "b": "w8a8"}]
    assert tried[-1].loss == 0.25 and tried[-1].mix.loss == pytest.approx(1.0), "as it was measured alone"


def test_the_first_stays_where_the_second_is_not_clearly_better_or_the_same() -> None:
    judgements, found = iter([torch.tensor([0.1, 0.4]), torch.tensor([0.4, 0.05])]), options(a=1.0, b=0.9)
    tried = settled(found, bits, 12, lambda _: searched(a=1.0, b=3.0), learn, lambda _: next(judgements))
    assert tried[-1].mix.formats == {"a": "w8a8", "b": "w4a8"} and len(tried) == 2
    same = settled(options(a=1.0, b=0.5), bits, 12, lambda _: searched(a=1.0, b=1.0), learn, lambda _: torch.ones(2))
    assert len(same) == 1


def test_corrections_are_bounded_and_unknown_layers_stay() -> None:
    mix = Mix({"a": "w4a8", "b": "w4a8", "c": "w4a8"}, 12, 3.0)
    found = corrected(options(a=1.0, b=1.0, c=1.0), mix, searched(a=100.0, b=-3.0))
    assert [each[0].loss for each in found.values()] == [4.0, 0.25, 1.0]


def test_the_loss_of_outputs_is_zero_only_for_the_original() -> None:
    torch.manual_seed(0)
    original, other, images = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(5, 4)
    judge = outputs_loss(original, 3, images, 2)
    assert judge(original).abs().max() < 1e-7
    assert judge(other).shape == (5,) and judge(other).min() > 0 and judge(other).mean() > 0.01
    whole = outputs_loss(original, 3, images, 5)
    torch.testing.assert_close(judge(other), whole(other), rtol=1e-5, atol=1e-7, msg="however many run together")
