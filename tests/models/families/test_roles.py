"""The words that families speak in: what they hold, and what counts as a norm or as nothing."""

from __future__ import annotations

import pytest
import timm.layers
from torch import nn

from fimaq_deploy.models.families.roles import Edge, Heads, NormReaders, is_identity, is_norm, is_rms


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.absent = nn.Linear(2, 3), nn.Linear(3, 3), None


def test_an_edge_owns_only_the_parts_that_it_names() -> None:
    model = Model()
    edge = Edge(model, ("stem", "absent", "unheard_of"))
    assert edge.model is model
    assert [name for name, _ in edge.named_parameters()] == ["parts.stem.weight", "parts.stem.bias"]
    assert set(edge.parts) == {"stem"} and edge.parts["stem"] is model.stem


def test_readers_follow_the_norm_that_stands_there_now() -> None:
    owner = nn.Module()
    owner.norm = nn.LayerNorm(4)
    reader = NormReaders("norm", owner, "norm", (nn.Linear(4, 4),))
    owner.norm = nn.Identity()
    assert reader.norm is owner.norm and reader.can_shift


@pytest.mark.parametrize(("width", "rows", "count", "size"), [(32, 96, 4, 8), (24, 48, 2, 8), (8, 24, 8, 1)])
def test_the_size_of_a_head_is_that_of_its_rows(width: int, rows: int, count: int, size: int) -> None:
    assert Heads("attn", nn.Linear(width, rows), nn.Linear(rows // 3, width), count).size == size


@pytest.mark.parametrize(
    ("module", "rms", "norm"),
    [
        (nn.LayerNorm(4), False, True),
        (nn.RMSNorm(4), True, True),
        (timm.layers.LayerNorm(4), False, True),
        (timm.layers.RmsNorm(4), True, True),
        (timm.layers.SimpleNorm(4), False, False),
        (nn.BatchNorm1d(4), False, False),
        (nn.Identity(), False, False),
    ],
)
def test_norms_are_told_apart(module: nn.Module, rms: bool, norm: bool) -> None:
    assert (is_rms(module), is_norm(module)) == (rms, norm)


@pytest.mark.parametrize("name", ["LlamaRMSNorm", "RmsNormFp32"])
def test_libraries_name_their_own_norms(name: str) -> None:
    assert is_rms(type(name, (nn.Module,), {})())


def test_and_derive_from_torchs_under_any_name() -> None:
    assert is_rms(type("Own", (nn.RMSNorm,), {})(4))


def test_a_part_that_is_absent_none_or_an_identity_is_nothing() -> None:
    model = Model()
    model.blank = nn.Identity()
    assert is_identity(model) and is_identity(model, "absent", "unheard_of", "blank")
    assert not is_identity(model, "blank", "stem")
