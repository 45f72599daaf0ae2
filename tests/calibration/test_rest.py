"""What a whole model makes of its encoder's error, as the cost that the encoder learns by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fixtures.detectors import detector, segmenter
from torch import Tensor, nn

import fimaq_deploy as fd
from fimaq_deploy.calibration.detections import detections
from fimaq_deploy.calibration.rest import Rest, find_divergence, numbered
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.inside import find_backbone


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def squared(reference: Tensor, answer: Tensor) -> Tensor:
    return (answer - reference).square().mean()


class Judged:
    """A segmenter, what its encoder answers of some images, and a judge of that."""

    def __init__(self, divergence: Any = squared) -> None:
        self.model, self.images = segmenter(), noise(4, 3, 32, 32)
        inside = find_backbone(self.model)
        with torch.no_grad():
            self.maps = inside.encoder(self.images)
        self.joined = torch.cat([each.flatten(1) for each in self.maps], 1)
        self.rest = Rest(self.model, inside, self.images, self.maps, divergence)
        self.references = torch.cat(list(numbered(self.joined, 2)))


def test_references_carry_the_number_of_their_image() -> None:
    found = Judged().references
    assert found[:, 0].tolist() == [0, 1, 2, 3]
    assert torch.equal(found[:, 1:], Judged().joined)


def test_the_cost_is_that_of_the_whole_model() -> None:
    """Of several images in any order, and of the last map alone where the first one cannot change any more."""
    judged, last = Judged(), Judged().maps[1][0].numel()
    assert judged.rest(judged.joined, judged.references, 1.0) == 0
    order = torch.tensor([2, 0])
    moved = (judged.joined + 0.1 * noise(*judged.joined.shape))[order]
    with torch.no_grad():
        parts = moved.split([each[0].numel() for each in judged.maps], 1)
        shaped = [part.unflatten(1, each.shape[1:]) for part, each in zip(parts, judged.maps, strict=True)]
        answers = nn.functional.interpolate(judged.model.decoder(torch.cat(shaped, 1)), (32, 32))  # type: ignore[operator]
        expected = squared(judged.model(judged.images)[order], answers)
    torch.testing.assert_close(judged.rest(moved, judged.references[order], 1.0), expected)
    late = judged.joined.clone()
    late[:, -last:] += 0.1
    torch.testing.assert_close(
        judged.rest(late[:, -last:], judged.references, 1.0), judged.rest(late, judged.references, 1.0)
    )


def test_gradients_come_back_to_the_maps_and_to_nothing_of_the_model() -> None:
    judged = Judged()
    leaf = (judged.joined + 0.1).requires_grad_()
    judged.rest(leaf, judged.references, 1.0).backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in judged.model.parameters())


def test_a_divergence_that_is_none_is_one_line() -> None:
    with pytest.raises(UserError, match="the divergence returned float: expected a tensor of one number"):
        Judged(lambda reference, answer: 0.0)
    with pytest.raises(UserError, match="the divergence cannot be taken of the model's answers: KeyError 'logits'"):
        Judged(lambda reference, answer: {}["logits"])
    assert find_divergence(None) is None
    assert find_divergence(squared) is squared
    assert find_divergence("detections") is detections
    with pytest.raises(UserError, match=r"--divergence 'detection': did you mean 'detections'\?"):
        find_divergence("detection")
    with pytest.raises(UserError, match=r"--divergence 'mine': expected detections, classes or package"):
        find_divergence("mine")


@pytest.mark.parametrize(("make", "divergence"), [(segmenter, squared), (detector, "detections")])
def test_an_encoder_learns_by_it(make: Any, divergence: Any) -> None:
    """The blocks end otherwise than by the default, and no worse for the whole model's answers than at the start."""
    model, images = make().eval(), noise(8, 3, 32, 32)
    quick = ["reconstruction.iterations=8", "reconstruction.batch_size=4", "scale_search.candidates=4"]
    recipe = fd.Recipe.load("w4a4").with_settings([*quick, "tuning.iterations=0", "reconstruction.loss=dplr"])
    guided = fd.quantize(model, images, recipe, divergence=divergence)
    plain = fd.quantize(model, images, recipe)
    own, other = (
        {name: one for name, one in each.state_dict().items() if "q_weight" in name} for each in (guided, plain)
    )
    assert any(not torch.equal(own[name], other[name]) for name in own)
    with torch.no_grad():
        judge = find_divergence(divergence)
        assert judge is not None
        assert torch.isfinite(judge(model(images), guided.inside(model)(images)))
