"""The encoder inside somebody's model: found by itself or by its path, and replaced in a copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fixtures.detectors import Segmenter, detector, segmenter, swin_body, vit_body
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.detectors import label_range
from fimaq_deploy.models.inside import (
    Standing,
    describe_whole,
    encoder_at,
    find_backbone,
    images_of,
    needs_search,
    splice,
    spliced,
    unasked,
)
from fimaq_deploy.models.preprocessing import Preprocessing


def test_the_one_encoder_is_found() -> None:
    model = detector()
    found = find_backbone(model)
    assert (found.name, type(found.encoder).__name__) == ("backbone.body", "FeatureListNet")
    assert found.family.name == "features"
    # What holds it names it as well, and what it is needs no search.
    assert find_backbone(model, "backbone").name == find_backbone(model, "backbone.body").name == "backbone.body"
    assert needs_search(model)
    assert not needs_search(found.encoder)
    assert find_backbone(found.encoder).name == ""
    assert encoder_at(model, "backbone.body").encoder is found.encoder


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("backbone.bdy", r"^backbone 'backbone.bdy': the model has no such module; nearest: backbone.body"),
        ("x.encoder", r"^backbone 'x.encoder': the model has no such module; nearest: "),
        (
            "rpn",
            r"^module 'rpn' is a RegionProposalNetwork: expected .* one of these inside; it has anchor_generator",
        ),
    ],
)
def test_a_wrong_path_is_one_line(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        find_backbone(detector(), path)
    assert "\n" not in str(raised.value)


def test_none_and_several_are_told() -> None:
    with pytest.raises(
        UserError, match=r"^the model is a Sequential: .*, or a model with one of these inside; it has 0 "
    ):
        find_backbone(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(
        UserError, match=r"^2 encoders are inside of the model: name one .* a \(FeatureListNet\), b \(F"
    ):
        find_backbone(nn.ModuleDict({"a": swin_body(), "b": vit_body()}))
    with pytest.raises(UserError, match="has no encoder as its module 'backbone'"):
        encoder_at(detector(), "backbone")
    with pytest.raises(UserError, match="the model is a str"):
        find_backbone("model")  # type: ignore[arg-type]


@torch.no_grad()
def test_the_encoder_in_its_own_place_changes_nothing() -> None:
    """With its answers by name, and with all numbers shared."""
    model = segmenter()
    inside, images = find_backbone(model), torch.randn(2, 3, 32, 32)
    made = spliced(model, inside, lambda x: {str(n): each for n, each in enumerate(inside.encoder(x))})
    assert torch.equal(made(images), model(images))
    assert made.decoder[0].weight is model.decoder[0].weight  # type: ignore[index, union-attr]
    assert isinstance(made, Segmenter)
    assert isinstance(made.encoder, Standing)
    assert made.encoder.feature_info.channels() == [32, 32]
    assert model.encoder is inside.encoder
    # As an engine answers, in arrays.
    arrays = spliced(model, inside, lambda x: {str(n): each.numpy() for n, each in enumerate(inside.encoder(x))})
    assert torch.equal(arrays(images), model(images))


def test_images_are_told_from_what_else_an_encoder_gets() -> None:
    images, mask = torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    assert images_of((), {"pixel_values": images, "pixel_mask": mask}) is images
    with pytest.raises(UserError, match=r"^the encoder gets \(1, 3, 4, 4\), \(1, 3, 4, 4\): expected one tensor"):
        images_of((images, images), {})


def test_what_a_whole_model_reads() -> None:
    """torchvision normalises itself; anything else is prepared as its configuration says."""
    model = detector()
    info = describe_whole(model, find_backbone(model), "mine")
    assert (info.name, info.input_shape, info.mean, info.std) == ("mine", (3, 32, 32), (0.0,) * 3, (1.0,) * 3)
    assert describe_whole(model, find_backbone(model), size=(40, 24)).input_shape == (3, 40, 24)
    other = segmenter()
    other.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "label_names": ["sky", "sea"]}
    told = describe_whole(other, find_backbone(other), preprocessing=Preprocessing(std=(0.5,)))
    assert (told.mean, told.std, told.class_names) == ((0.5,) * 3, (0.5,) * 3, ("sky", "sea"))


class Pooled(nn.Module):
    """Classes by an encoder's last map."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = vit_body(), nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images)[-1].mean((2, 3)))


def test_a_model_about_places_is_shown_whole_images() -> None:
    """Whatever the classifier that its encoder was a part of cut off; of its own configuration what it says."""
    config = {"crop_pct": 0.9, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    segments, detects, classifies = segmenter(), detector(), Pooled().eval()
    for model in (segments, detects, classifies):
        find_backbone(model).encoder.pretrained_cfg = config  # type: ignore[assignment]
    found = [describe_whole(model, find_backbone(model)) for model in (segments, detects, classifies)]
    assert [(one.crop_pct, one.crop_mode) for one in found] == [(1.0, "squash"), (1.0, "squash"), (0.9, "center")]
    assert found[0].mean == found[2].mean == (0.5,) * 3
    segments.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # says nothing about crops
    assert describe_whole(segments, find_backbone(segments)).crop_mode == "squash"
    segments.pretrained_cfg = config
    asked = describe_whole(segments, find_backbone(segments))
    assert (asked.crop_pct, asked.crop_mode) == (0.9, "center")
    told = describe_whole(segments, find_backbone(segments), preprocessing=Preprocessing(crop_mode="border"))
    assert (told.crop_pct, told.crop_mode) == (0.9, "border")


def test_the_labels_of_a_detector_show_in_what_it_answers() -> None:
    """Where its layers are not those that torchvision comes with: here three scores, the first of the background."""
    model = detector().eval()
    assert label_range(model) is None
    assert describe_whole(model, find_backbone(model)).labels == range(1, 3)
    assert describe_whole(segmenter(), find_backbone(segmenter())).labels is None


def test_names_are_the_models_own_not_those_of_its_encoder() -> None:
    model: Any = segmenter()
    model.encoder.pretrained_cfg = {"label_names": ["tench", "goldfish"]}
    assert describe_whole(model, find_backbone(model)).class_names == ()
    model.config = SimpleNamespace(id2label={1: "cat", 0: "dog"}, num_labels=2)
    info = describe_whole(model, find_backbone(model))
    assert (info.class_names, info.labels) == (("dog", "cat"), range(2))
    model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    assert describe_whole(model, find_backbone(model)).class_names == ()


@torch.no_grad()
def test_an_engine_in_the_encoders_place() -> None:
    """Whatever order it has its outputs in."""
    model, images = segmenter(), torch.randn(2, 3, 32, 32)

    def engine(arrays: Any) -> Any:
        first, second = model.encoder(torch.from_numpy(arrays))
        return {"blocks_1": second.numpy(), "blocks_0": first.numpy()}

    assert torch.equal(splice(model, engine)(images), model(images))
    assert torch.equal(splice(model, model.encoder, "encoder")(images), model(images))


class Bypassing(nn.Module):
    """Runs its encoder by a method of it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = vit_body()

    def forward(self, images: torch.Tensor) -> Any:
        self.encoder(images)
        return self.encoder.forward_features(images)


def test_a_method_that_would_run_the_replaced_encoder_is_refused() -> None:
    model = Bypassing()
    type(model.encoder).forward_features = lambda self, images: self(images)
    try:
        with pytest.raises(UserError, match=r"^the rest of the model calls forward_features of its encoder \(Feature"):
            splice(model, model.encoder)(torch.zeros(1, 3, 32, 32))
    finally:
        del type(model.encoder).forward_features


def test_what_transformers_leaves_empty_unless_asked() -> None:
    encoder = nn.Identity()
    assert unasked(encoder, {}) == ["hidden_states", "attentions"]
    assert unasked(encoder, {"output_hidden_states": True}) == ["attentions"]
    encoder.config = SimpleNamespace(output_attentions=True)
    assert unasked(encoder, {}) == ["hidden_states"]
