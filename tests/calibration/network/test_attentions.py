"""The attentions of a model are found under the same names before and after they are spelled out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.network.attentions import attention_tokens, attentions_of, is_explicit, replace_module
from fimaq_deploy.calibration.network.quantized_copy import explicit_copy
from fimaq_deploy.errors import UserError

Make = Callable[..., Any]


def image_for(model: Any) -> Tensor:
    return torch.randn(1, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["tiny_vit", "tiny_deit", "tiny_swin"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    return request.getfixturevalue(request.param)()


def test_spelling_attention_out_changes_no_name_and_no_size(model: nn.Module) -> None:
    made = explicit_copy(model)
    assert (is_explicit(model), is_explicit(made)) == (False, True)
    before, after = attentions_of(model), attentions_of(made)
    assert list(before) == list(after) and len(before) == sum(
        name.endswith(".attn") for name, _ in made.named_modules()
    )
    for name, heads in before.items():
        assert (heads.count, heads.size) == (after[name].count, after[name].size)
        assert torch.equal(heads.qkv.weight, after[name].qkv.weight)
        assert torch.equal(heads.proj.weight, after[name].proj.weight)
    assert attention_tokens(model, image_for(model)) == attention_tokens(made, image_for(model))


def test_a_module_without_attention_has_none() -> None:
    assert not is_explicit(nn.Sequential(nn.Linear(2, 2)))


def test_a_module_is_replaced_by_its_name() -> None:
    root, new = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Tanh())), nn.Identity()
    replace_module(root, "1.1", new)
    assert root.get_submodule("1.1") is new and isinstance(root.get_submodule("1.0"), nn.ReLU)
    replace_module(root, "0", new)
    assert root[0] is new
    with pytest.raises(AttributeError):
        replace_module(root, "2.0", new)


def test_tokens_are_counted_per_attention(tiny_vit: Make, tiny_swin: Make) -> None:
    vit = tiny_vit(reg_tokens=2)
    assert attention_tokens(vit, image_for(vit)) == {"blocks.0.attn": 7, "blocks.1.attn": 7}
    swin = tiny_swin(window_size=8)
    assert set(attention_tokens(swin, image_for(swin)).values()) == {64, 16}


def test_an_attention_that_is_never_called_is_one_line_and_nothing_stays_hooked(tiny_vit: Make) -> None:
    model = tiny_vit()
    model.blocks[1].forward = lambda x, **_: x
    with pytest.raises(UserError, match=r"^module 'blocks\.1\.attn' is never called: .*what its class says$"):
        attention_tokens(model, image_for(model))
    with pytest.raises(RuntimeError):
        attention_tokens(model, torch.zeros(1, 7, 16, 16))
    assert not any(module._forward_pre_hooks for module in model.modules())
