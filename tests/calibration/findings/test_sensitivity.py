from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.findings.sensitivity import Sensitivity, measure_sensitivity
from fimaq_deploy.calibration.learning.fisher import kl_divergence, softmax_fisher
from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy, stages_of
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantizers.layers import QuantizedLayer, enable_quantization, freeze
from fimaq_deploy.calibration.state import mark_frozen
from fimaq_deploy.target import find_target

Make = Callable[..., Any]


def test_the_loss_is_half_the_fisher_form_of_the_softmax() -> None:
    torch.manual_seed(0)
    logits, d = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    p = logits.softmax(1)
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("bi,bij,bj->b", d, fisher, d).mean() / 2
    assert softmax_fisher(d, logits) == pytest.approx(expected.item())
    assert softmax_fisher(torch.ones(5, 7), logits.float()).item() == pytest.approx(0, abs=1e-6), (
        "a shift costs nothing"
    )


def test_the_loss_is_kl_for_small_deviations() -> None:
    torch.manual_seed(1)
    logits, d = torch.randn(9, 4, dtype=torch.float64), 1e-3 * torch.randn(9, 4, dtype=torch.float64)
    assert softmax_fisher(d, logits).item() == pytest.approx(kl_divergence(logits + d, logits, 1.0).item(), rel=1e-2)


def frozen(model: nn.Module, images: Tensor, recipe: Any) -> nn.Module:
    """A searched and frozen twin that still has its full-precision weights."""
    twin = quantized_copy(model, make_plan(model, recipe, find_target("tensorrt"), attention_tokens(model, images[:1])))
    x = images
    with torch.no_grad():
        for stage in stages_of(twin):
            search_stage(stage.module, [x], 8)
            x = stage.module(x)
    freeze(twin)
    mark_frozen(twin)
    return twin


@pytest.fixture(params=["tiny_vit", "tiny_swin"])
def case(
    request: pytest.FixtureRequest, random_images: Make, quick_recipe: Make
) -> tuple[nn.Module, nn.Module, Tensor]:
    """A model, its frozen twin and images, more than one batch of them."""
    model = request.getfixturevalue(request.param)()
    images = random_images(40, 16 if request.param == "tiny_vit" else 32)
    return model, frozen(model, images, quick_recipe(weights={"bits": 3})), images


def loss(twin: nn.Module, model: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        reference = model(images)
        return softmax_fisher(twin(images) - reference, reference).item()


def slow(model: nn.Module, twin: nn.Module, images: Tensor, modules: list[nn.Module]) -> tuple[float, float]:
    """Alone and spared by whole runs of the network, for what these modules quantize."""

    def switch(on: bool) -> None:
        for module in modules:
            module.enable(on) if isinstance(module, QuantizedLayer) else enable_quantization(module, on)

    enable_quantization(twin, False)
    switch(True)
    alone = loss(twin, model, images)
    enable_quantization(twin, True)
    whole = loss(twin, model, images)
    switch(False)
    spared = whole - loss(twin, model, images)
    enable_quantization(twin, True)
    return alone, spared


def test_every_block_and_layer_as_whole_runs_tell_it(case: tuple[nn.Module, nn.Module, Tensor]) -> None:
    model, twin, images = case
    found = {(one.kind, one.name): one for one in measure_sensitivity(twin, stages_of(twin), images)}
    for stage in stages_of(twin):
        one = found.pop(("block", stage.name))
        assert (one.alone, one.spared) == pytest.approx(slow(model, twin, images, [stage.module]), rel=1e-3, abs=1e-6)
    for name, module in twin.named_modules():
        if isinstance(module, QuantizedLayer):
            one = found.pop(("layer", name))
            assert (one.alone, one.spared) == pytest.approx(slow(model, twin, images, [module]), rel=1e-3, abs=1e-6)
        if name.endswith("attn.quantizers"):
            one = found.pop(("layer", name.replace("quantizers", "operands")))
            assert (one.alone, one.spared) == pytest.approx(slow(model, twin, images, [module]), rel=1e-3, abs=1e-6)
    assert found == {}


def test_everything_is_quantized_afterwards(case: tuple[nn.Module, nn.Module, Tensor]) -> None:
    _, twin, images = case
    before = twin(images)
    measure_sensitivity(twin, stages_of(twin), images)
    assert torch.equal(twin(images), before)


def test_layers_have_the_models_own_names_where_a_wrapper_runs_it(case: tuple[nn.Module, nn.Module, Tensor]) -> None:
    _, twin, images = case
    found = measure_sensitivity(nn.Sequential(twin), stages_of(twin), images, named=twin)
    assert found == measure_sensitivity(twin, stages_of(twin), images)


def test_a_rough_layer_costs_most(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> None:
    """Everything at 8 bits but one layer, whose weights are worth 2."""
    model, images = tiny_vit(), random_images(32)
    twin = frozen(model, images, quick_recipe(weights={"bits": 8}, activations={"bits": 8}))
    rough = twin.get_submodule("blocks.1.mlp.fc1")
    rough.q_weight = (rough.q_weight.float() / 64).round().mul(64).clamp(-128, 127).to(torch.int8)
    found = [one for one in measure_sensitivity(twin, stages_of(twin), images) if one.kind == "layer"]
    assert max(found, key=lambda one: one.alone).name == "blocks.1.mlp.fc1"
    assert max(found, key=lambda one: one.spared).name == "blocks.1.mlp.fc1"


def test_it_is_measured_where_it_is_asked_for(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> None:
    told: list[str] = []
    arguments = tiny_vit(), random_images(16), quick_recipe(tuning={"iterations": 2})
    asked = quantize(*arguments, sensitivity=8, progress=lambda _done, _total, name: told.append(name))
    plain = quantize(*arguments)
    assert plain.sensitivity == ()
    assert all(isinstance(one, Sensitivity) and one.alone >= 0 for one in asked.sensitivity)
    assert [one.name for one in asked.sensitivity if one.kind == "block"] == [stage.name for stage in asked.stages]
    assert "sensitivity of blocks.1" in told
    assert torch.equal(asked(arguments[1]), plain(arguments[1])), "measuring changes nothing"


def test_layers_without_a_grid_for_attention_have_no_operands(
    tiny_vit: Make, random_images: Make, quick_recipe: Make
) -> None:
    found = quantize(tiny_vit(), random_images(8), quick_recipe(attention={"quantize": "never"}), sensitivity=8)
    assert not any("operands" in one.name for one in found.sensitivity)
