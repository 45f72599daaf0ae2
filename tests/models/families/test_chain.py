"""A chain is its links one behind the other, and knows what its parts are called in the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fimaq_deploy.models.families.chain import Chain
from fimaq_deploy.models.families.head import Head

NAMES = ("patch_embed", "layers.0.blocks.0", "layers.0.blocks.1", "layers.1.downsample", "head")


class Model(nn.Module):
    """Whose parts the chain shares, under other names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 4))
        self.last = nn.Linear(4, 3)


def chain(model: Any) -> Any:
    links = [model.stem, *model.body, Head(classifier=model.last)]
    return Chain(dict(zip(NAMES, links, strict=True)), (3, 1, 2), classes=3, answer="logits")


def test_it_computes_its_links_in_order() -> None:
    model: Any = Model()
    images = torch.randn(5, 6)
    assert torch.equal(chain(model)(images), model.last(model.body(model.stem(images))))


def test_its_stages_are_the_links_under_their_names() -> None:
    model: Any = Model()
    made = chain(model)
    assert tuple(stage.name for stage in made.stages()) == NAMES
    assert [stage.module for stage in made.stages()][:4] == [model.stem, *model.body]
    assert all(made.get_submodule(stage.name) is stage.module for stage in made.stages())


def test_numbers_are_places_in_a_list() -> None:
    made = chain(Model())
    assert isinstance(made.layers, nn.ModuleList) and isinstance(made.layers[0].blocks, nn.ModuleList)
    assert len(made.layers) == 2 and len(made.layers[0].blocks) == 2


def test_it_says_what_it_takes_and_answers() -> None:
    made = chain(Model())
    assert (made.input_shape, made.num_classes, made.answer) == ((3, 1, 2), 3, "logits")


def test_origins_are_the_models_own_modules_and_no_others() -> None:
    model: Any = Model()
    made = chain(model)
    assert made.origins == {}
    assert made.trace_origins(model) is made
    assert made.origins == {
        "patch_embed": "stem",
        "layers.0.blocks.0": "body.0",
        "layers.0.blocks.1": "body.1",
        "layers.1.downsample": "body.2",
        "head.classifier": "last",
    }


def test_torchs_exporter_keeps_the_names_of_the_links() -> None:
    program = torch.export.export(chain(Model()).eval(), (torch.randn(2, 6),))
    assert {name.rpartition(".")[0] for name in program.state_dict} == {
        "patch_embed",
        "layers.0.blocks.0",
        "layers.1.downsample",
        "head.classifier",
    }
    paths = {path for node in program.graph.nodes for path, _ in node.meta.get("nn_module_stack", {}).values()}
    assert set(NAMES) <= paths


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_reaches_every_link(training: bool) -> None:
    assert all(module.training == training for module in chain(Model()).train(training).modules())
