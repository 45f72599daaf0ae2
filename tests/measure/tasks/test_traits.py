"""What models of timm, torchvision and Hugging Face say of their outputs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
from torch import nn

from fimaq_deploy.measure.tasks.traits import Traits, traits_of


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper], ids=["bare", "wrapped"])
@pytest.mark.parametrize("classes", [0, 7])
def test_timm_models_say_what_they_are(wrap: Any, classes: int) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=classes, img_size=32, depth=1)
    assert traits_of(wrap(model)) == Traits(classes, 192)


def test_a_linear_head_says_how_wide_it_is() -> None:
    model = Wrapper(nn.Linear(4, 4))
    assert traits_of(model) == Traits()
    model.head = nn.Linear(4, 3)  # type: ignore[assignment]
    assert traits_of(model) == Traits(classes=3)
    assert traits_of(lambda images: images) == Traits()


def test_hugging_face_models_say_what_they_are() -> None:
    transformers = pytest.importorskip("transformers")
    size = {"image_size": 32, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.ViTConfig(
        **size, intermediate_size=8, num_labels=5, problem_type="multi_label_classification"
    )
    assert traits_of(transformers.ViTForImageClassification(config)) == Traits(5, 12, "multilabel")
    assert traits_of(transformers.ViTModel(config)) == Traits(None, 12, "multilabel")


@pytest.mark.parametrize("name", ["head", "heads", "fc", "classifier"])
def test_the_last_linear_layer_under_a_classifiers_name_counts(name: str) -> None:
    model = Wrapper(nn.Linear(4, 8))
    model.add_module(name, nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 2)))
    assert traits_of(model).classes == 2


def test_what_the_model_says_itself_goes_before_its_layers_and_the_outer_before_the_inner() -> None:
    inner, model = nn.Linear(4, 3), Wrapper(nn.Linear(4, 3))
    inner.num_classes, inner.num_features = 3, 5  # type: ignore[assignment]
    model.head = inner
    assert traits_of(model) == Traits(3, 5)
    model.num_classes = 0  # type: ignore[assignment]
    assert traits_of(model) == Traits(0, 5)


@pytest.mark.parametrize("said", ["12", 1.5, None], ids=str)
def test_a_width_that_is_no_whole_number_says_nothing(said: object) -> None:
    model = Wrapper(nn.Identity())
    model.num_features = said  # type: ignore[assignment]
    assert traits_of(model).features is None
