"""What a family answers that overrides nothing, and how a module that is not understood is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.attention import ExplicitAttention
from fimaq_deploy.models.families.family import Family, expect
from fimaq_deploy.models.families.roles import Heads, NormReaders, Stage


class Plain(Family):
    """Only what every family has to answer."""

    name, kinds = "plain", ("Sequential",)

    def claims(self, model: object) -> bool:
        return isinstance(model, nn.Sequential)

    def stages(self, model: nn.Module) -> list[Stage]:
        return [Stage(name, module) for name, module in model.named_children()]

    def image_shape(self, model: nn.Module) -> tuple[int, int, int]:
        return 3, 8, 8

    def heads(self, model: nn.Module) -> Iterator[Heads]:
        return iter(())

    def spelled_out(self, attention: nn.Module) -> ExplicitAttention:
        raise NotImplementedError

    def norms(self, model: nn.Module) -> Iterator[NormReaders]:
        return iter(())


def test_a_family_has_to_answer_for_its_models() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Family()  # type: ignore[abstract]


def test_what_is_not_said_is_the_careful_answer() -> None:
    family, model = Plain(), nn.Sequential(nn.Linear(2, 2))
    state = {"0.weight": torch.zeros(1)}
    assert family.as_chain(model) is model and family.translated(model, state) is state
    assert family.kept(model) == {} and not family.head_reads_a_mean(model)
    assert family.stream(model) == "Sequential: the residual stream of this family cannot be rotated"
    assert family.rewrites == {"norm": True, "heads": False, "values": False, "rotation": False}


@pytest.mark.parametrize(
    ("layer", "position"),
    [
        ("patch_embed.proj", "patch_embed"),
        ("head", "head"),
        ("head.fc", "head"),
        ("head_dist", None),
        ("blocks.0.head", None),
        ("blocks.0.mlp.fc1", None),
    ],
)
def test_the_edges_are_known_by_their_names(layer: str, position: str | None) -> None:
    assert Plain().position(layer) == position


def test_a_convolution_between_the_edges_is_refused_by_name() -> None:
    model = nn.Sequential()
    model.patch_embed = nn.Conv2d(3, 4, 2)
    Plain().check(model)
    model.body = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 1))
    with pytest.raises(UserError, match=r"^module 'body\.1': a convolution outside the patch embedding is not"):
        Plain().check(model)


@pytest.mark.parametrize(("said", "classes"), [(7, 7), (0, 0), (None, 0)])
def test_classes_are_the_models_own_word(said: int | None, classes: int) -> None:
    model = nn.Sequential()
    assert Plain().classes(model) == 0
    model.num_classes = said  # type: ignore[assignment]
    assert Plain().classes(model) == classes


def test_another_class_is_refused_and_a_subclass_too() -> None:
    class Own(nn.LayerNorm):
        pass

    expect("norm", nn.LayerNorm(3), (nn.RMSNorm, nn.LayerNorm))
    with pytest.raises(UserError) as caught:
        expect("blocks.1.norm", Own(3), (nn.RMSNorm, nn.LayerNorm))
    assert str(caught.value) == (
        "module 'blocks.1.norm' is a Own, which is not understood: expected RMSNorm or LayerNorm"
    )
