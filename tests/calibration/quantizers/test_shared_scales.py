"""Scales made together are those that each quantizer makes alone, to the bit, and learn alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer, WeightQuantizer
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, WeightGrid
from fimaq_deploy.calibration.quantizers.shared_scales import SharedScales

Quantizers = list["ActivationQuantizer | WeightQuantizer"]


def quantizers() -> Quantizers:
    """Of several widths, one of them not learning."""
    generator = torch.Generator().manual_seed(0)
    activations = [ActivationQuantizer(ActivationGrid(bits, "asymmetric")) for bits in (3, 4, 8, 6)]
    weights = [WeightQuantizer(WeightGrid(3), 5, 8), WeightQuantizer(WeightGrid(4, 4), 5, 8)]
    for each in (*activations, *weights):
        with torch.no_grad():
            each.scale.copy_(torch.rand(each.scale.shape, generator=generator) + 0.01)
            each.enabled = True
    for quantizer in activations[:3]:
        quantizer.learn(0.0, 1e-3)
    for weight in weights:
        with torch.no_grad():
            weight.latent.copy_(3 * torch.randn(weight.latent.shape, generator=generator))
        weight.learn_scale()
    return [*activations, *weights]


def answers(found: Quantizers) -> list[Tensor]:
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(1))
    return [each(x) if isinstance(each, ActivationQuantizer) else each() for each in found]


@pytest.mark.parametrize("steps", [1, 3])
def test_together_and_alone_are_equal(steps: int) -> None:
    alone, together = quantizers(), quantizers()
    shared = SharedScales(together)
    for _ in range(steps):
        for found in (alone, together):
            if found is together:
                shared.make()
            sum(answer.square().sum() for answer in answers(found)).backward()
    assert all(torch.equal(a, b) for a, b in zip(answers(alone), answers(together), strict=True))
    for one, other in zip(alone, together, strict=True):
        if one.log_scale is not None:
            assert one.log_scale.grad.abs().sum() > 0
            assert torch.equal(one.log_scale.grad, other.log_scale.grad)


def test_what_was_learned_is_what_is_kept() -> None:
    found = quantizers()
    shared = SharedScales(found)
    shared.make()
    with torch.no_grad():
        for each in found:
            if each.log_scale is not None:
                each.log_scale.add_(0.5)
    shared.make()
    before = answers(found)
    for each in found:
        each.settle() if isinstance(each, ActivationQuantizer) else each.settle_scale()
    assert all(each.short_scale is None for each in found)
    for each, answer in zip(found, before, strict=True):
        if isinstance(each, WeightQuantizer):
            torch.testing.assert_close(each(), answer, rtol=0.1, atol=0.05)


def test_nothing_to_learn_is_nothing_to_make() -> None:
    quantizer = ActivationQuantizer(ActivationGrid(4, "asymmetric"))
    SharedScales([quantizer]).make()
    assert quantizer.short_scale is None
