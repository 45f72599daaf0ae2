from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.fisher import kl_divergence
from fimaq_deploy.calibration.learning.gradients import answer_of, divergence_gradient, pull_back, suffix_of
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.models.families.roles import Stage

TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def chain(tiny_vit: Callable[..., VisionTransformer], random_images: Callable[..., Tensor]) -> dict[str, object]:
    """A float64 model cut after its first block: z there, and everything around it."""
    model = tiny_vit().double().requires_grad_(False)
    images = random_images(3).double()
    stages = stages_of(model)
    z = suffix_of(stages[:2])(images)
    return {"model": model, "images": images, "stages": stages, "z": z, "suffix": suffix_of(stages[2:])}


def test_prefix_and_suffix_compose_to_the_model(chain: dict) -> None:
    assert torch.equal(chain["suffix"](chain["z"]), chain["model"](chain["images"]))


def test_the_suffix_of_nothing_is_the_identity() -> None:
    x = torch.randn(2, 3)
    assert suffix_of([])(x) is x


def test_the_gradient_is_autograd_through_the_whole_model(chain: dict) -> None:
    stages, images, z = chain["stages"], chain["images"].clone().requires_grad_(), chain["z"]
    output = stages[1].module(stages[0].module(images)) + 0.1 * torch.randn(z.shape, dtype=z.dtype)
    output.retain_grad()
    reference = chain["model"](chain["images"])
    logits = stages[3].module(stages[2].module(output))
    (kl_divergence(logits, reference, TEMPERATURE) * len(z)).backward()
    found = divergence_gradient(chain["suffix"], output, reference, TEMPERATURE)
    torch.testing.assert_close(found, output.grad)


def test_what_is_handed_out_from_a_stage_on_is_joined() -> None:
    """And where nothing is, it is the plain suffix."""
    double, triple, flat = (nn.Linear(2, 2, bias=False).requires_grad_(False) for _ in range(3))
    for layer, factor in ((double, 2.0), (triple, 3.0), (flat, 1.0)):
        nn.init.eye_(layer.weight).mul_(factor)
    stages = [Stage("a", double, flat), Stage("b", triple), Stage("c", double)]
    x = torch.randn(4, 2)
    torch.testing.assert_close(answer_of(stages)(x), torch.cat([2 * x, 12 * x], 1))
    torch.testing.assert_close(answer_of(stages[1:], flat)(x), torch.cat([x, 6 * x], 1))
    assert torch.equal(answer_of(stages[1:])(x), suffix_of(stages[1:])(x))


def test_each_sample_has_its_own_gradient(chain: dict) -> None:
    output = chain["z"] + 0.1
    reference = chain["suffix"](chain["z"])
    together = divergence_gradient(chain["suffix"], output, reference, TEMPERATURE)
    alone = [
        divergence_gradient(chain["suffix"], output[i : i + 1], reference[i : i + 1], TEMPERATURE) for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_no_gradient_reaches_the_parameters_and_none_is_needed_outside(chain: dict) -> None:
    with torch.no_grad():
        divergence_gradient(chain["suffix"], chain["z"] + 0.1, chain["suffix"](chain["z"]), TEMPERATURE)
    assert all(parameter.grad is None for parameter in chain["model"].parameters())


def fisher_of(chain: dict, index: int) -> Tensor:
    """F = Jᵀ (diag p - ppᵀ) J / T² of one sample, from the whole Jacobian."""
    z = chain["z"][index]
    jacobian = torch.autograd.functional.jacobian(lambda x: chain["suffix"](x[None])[0], z).flatten(1)
    p = (chain["suffix"](z[None])[0] / TEMPERATURE).softmax(0)
    return jacobian.T @ ((torch.diag(p) - torch.outer(p, p)) / TEMPERATURE**2) @ jacobian


def test_near_the_optimum_the_gradient_is_the_fisher_matrix_times_the_deviation(chain: dict) -> None:
    z = chain["z"]
    d = 1e-5 * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    g = divergence_gradient(chain["suffix"], z + d, chain["suffix"](z), TEMPERATURE).flatten(1)
    for index in range(len(z)):
        expected = fisher_of(chain, index) @ d[index].flatten()
        torch.testing.assert_close(g[index], expected, rtol=1e-2, atol=1e-3 * expected.abs().max().item())


def test_half_the_squared_deviation_in_the_fisher_metric_is_the_divergence(chain: dict) -> None:
    z = chain["z"]
    d = 1e-3 * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    divergence = kl_divergence(chain["suffix"](z + d), chain["suffix"](z), TEMPERATURE).item()
    forms = [d[i].flatten() @ fisher_of(chain, i) @ d[i].flatten() for i in range(len(z))]
    assert sum(forms).item() / len(z) / 2 == pytest.approx(divergence, rel=0.02)


def test_gradients_are_left_as_backward_leaves_them() -> None:
    """Of parameters with one gradient between them, in another layout, twice over, and of one that has none."""
    torch.manual_seed(0)
    shapes, found = [(3,), (3,), (4, 3), (2,)], []
    values = [torch.randn(shape) for shape in shapes]
    x = torch.randn(5, 3)
    for way in (lambda loss, _: loss.backward(), pull_back):
        one, other, turned, _unused = parameters = [nn.Parameter(value.clone()) for value in values]
        for scale in (1.0, 0.3):
            way((((x + (one + other)) @ turned.t()).sin() * scale).sum(), parameters)
        assert one.grad.data_ptr() != other.grad.data_ptr()
        assert turned.grad.stride() == turned.stride()
        found.append([parameter.grad for parameter in parameters])
    assert found[0][3] is None and found[1][3] is None
    assert all(torch.equal(left, right) for left, right in zip(found[0][:3], found[1][:3], strict=True))
