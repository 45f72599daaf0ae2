"""A chain that hands out several tensors on its way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fimaq_deploy.models.families.tapped import Map, Tapped


def doubling() -> nn.Linear:
    layer = nn.Linear(2, 2, bias=False).requires_grad_(False)
    nn.init.eye_(layer.weight).mul_(2)
    return layer


def test_outputs_come_in_the_order_of_the_links() -> None:
    maps = [Map("NLC", (2, 2)) for _ in range(2)]
    links = {"patch_embed": nn.Identity(), "blocks.0": doubling(), "blocks.1": doubling()}
    chain = Tapped(links, {"blocks.0": ("early", maps[0]), "blocks.1": ("late", maps[1])}, (1, 2, 2))
    x = torch.randn(3, 4, 2)
    found = chain(x)
    assert list(found) == ["early", "late"]
    assert torch.equal(found["early"], 2 * x)
    assert torch.equal(found["late"], 4 * x)
    assert [stage.name for stage in chain.stages()] == ["patch_embed", "blocks.0", "blocks.1", "head"]
    assert [stage.tap is not None for stage in chain.stages()] == [False, True, False, False]


@pytest.mark.parametrize(
    ("layout", "prefix", "shape"),
    [("NCHW", 1, (2, 3, 2, 4)), ("NLC", 1, (2, 8, 3)), ("NLC", None, (2, 9, 3)), ("NHWC", 1, (2, 2, 4, 3))],
)
def test_tokens_become_maps(layout: str, prefix: int | None, shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 9, 3)
    found = Map(layout, (2, 4), prefix=prefix)(x)  # type: ignore[arg-type]
    assert found.shape == shape
    first = found[:, :, 0, 0] if layout == "NCHW" else found[:, 0, 0] if layout == "NHWC" else found[:, 0]
    assert torch.equal(first, x[:, 0] if prefix is None else x[:, 1])


def test_maps_become_maps() -> None:
    x = torch.randn(2, 2, 4, 3)
    assert torch.equal(Map("NCHW", (2, 4))(x), x.permute(0, 3, 1, 2))
    assert torch.equal(Map("NHWC", (2, 4))(x), x)
    assert torch.equal(Map("NLC", (2, 4))(x), x.flatten(1, 2))
    assert torch.equal(Map("NHWC", (2, 4)).features(x), x.flatten(1))
