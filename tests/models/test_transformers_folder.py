"""Folders of models that timm has not: made by `transformers`, with preprocessing, class names and other sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.models.load import load_model, open_model

transformers = pytest.importorskip("transformers")

SIZE = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PLAIN = {**SIZE, "intermediate_size": 64}
NAFLEX = {**{name: one for name, one in PLAIN.items() if name != "image_size"}, "num_patches": 16}
WINDOWS = {"image_size": 32, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}


def of(name: str, config: str, **settings: Any) -> Any:
    return getattr(transformers, name)(getattr(transformers, config)(**settings))


MODELS: dict[str, Callable[[], Any]] = {
    "BEiT": lambda: of("BeitForImageClassification", "BeitConfig", **PLAIN, use_relative_position_bias=True),
    "BEiT without a pooler": lambda: transformers.BeitModel(transformers.BeitConfig(**PLAIN), add_pooling_layer=False),
    "SwinV2": lambda: of("Swinv2ForImageClassification", "Swinv2Config", **WINDOWS),
    "Swin with positions": lambda: of("SwinModel", "SwinConfig", **WINDOWS, use_absolute_embeddings=True),
    "DINOv2, classifier": lambda: of("Dinov2ForImageClassification", "Dinov2Config", **SIZE, num_labels=5),
    "DINOv2 with registers, classifier": lambda: of(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", **SIZE, num_labels=5
    ),
    "DINOv3": lambda: of("DINOv3ViTModel", "DINOv3ViTConfig", **PLAIN, num_register_tokens=2),
    "Data2Vec": lambda: of(
        "Data2VecVisionForImageClassification", "Data2VecVisionConfig", **PLAIN, use_relative_position_bias=True
    ),
    "I-JEPA": lambda: of("IJepaForImageClassification", "IJepaConfig", **PLAIN),
    "ViT-MSN": lambda: of("ViTMSNForImageClassification", "ViTMSNConfig", **PLAIN),
    "SigLIP 2, NaFlex": lambda: of("Siglip2VisionModel", "Siglip2VisionConfig", **NAFLEX),
    "SigLIP 2, both towers": lambda: of("Siglip2Model", "Siglip2Config", vision_config=NAFLEX, text_config=TEXT),
    "CLIP, vision": lambda: of("CLIPVisionModel", "CLIPVisionConfig", **PLAIN),
    "CLIP, both towers": lambda: of(
        "CLIPModel", "CLIPConfig", vision_config={**PLAIN, "projection_dim": 24}, text_config=TEXT, projection_dim=24
    ),
    "SigLIP, vision": lambda: of("SiglipVisionModel", "SiglipVisionConfig", **PLAIN),
    "SigLIP, both towers": lambda: of("SiglipModel", "SiglipConfig", vision_config=PLAIN, text_config=TEXT),
}


def written(model: Any, folder: Path, **processor: Any) -> Path:
    model.save_pretrained(folder, max_shard_size="30KB")
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, "size": 32, **processor}))
    return folder


def expected(model: Any, images: torch.Tensor) -> torch.Tensor:
    if hasattr(model, "text_model") and type(model).__name__ != "Siglip2Model":
        found = model.get_image_features(images)
        return found if isinstance(found, torch.Tensor) else found.pooler_output
    tower = getattr(model, "vision_model", model) if hasattr(model, "text_model") else model
    found = family_of(tower).original(tower)(images)
    return next(iter(found.values()))


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_a_folder_computes_what_transformers_does(
    kind: str, tmp_path: Path, with_weights: Any, relative_difference: Any
) -> None:
    model = with_weights(MODELS[kind]())
    loaded = open_model(str(written(model, tmp_path)))
    images = torch.randn(2, *describe_model(loaded.model).input_shape)
    ours = next(iter(family_of(loaded.model).original(loaded.model)(images).values()))
    assert relative_difference(ours, expected(model, images)) < 1e-5
    if "towers" in kind:
        assert any("tensors of" in note and "were left out" in note for note in loaded.notes)


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", ["BEiT", "Data2Vec", "DINOv2, classifier", "DINOv3", "I-JEPA", "ViT-MSN", "CLIP, vision", "SigLIP, vision"]
)
def test_another_image_size_and_channels(
    kind: str, tmp_path: Path, with_weights: Any, relative_difference: Any
) -> None:
    """As the model itself answers larger images, where it is asked to interpolate."""
    model = with_weights(MODELS[kind]())
    loaded = open_model(str(written(model, tmp_path)), sizes=Sizes((48, 48)))
    assert describe_model(loaded.model).input_shape == (3, 48, 48)
    images = torch.randn(2, 3, 48, 48)
    chain = family_of(loaded.model).as_chain(loaded.model)
    asked = {} if kind.startswith(("BEiT", "DINO", "Data2Vec")) else {"interpolate_pos_encoding": True}
    theirs = model(images, **asked)
    theirs = theirs.logits if hasattr(theirs, "logits") else theirs.pooler_output
    assert relative_difference(chain(images), theirs) < 1e-4
    if asked:
        assert loaded.notes[-1].startswith("resampled for the size that was asked for: position embeddings from")
    grey = open_model(str(tmp_path), sizes=Sizes(None, 1))
    assert describe_model(grey.model).input_shape == (1, 32, 32)
    assert "the first convolution from 3 channels to 1" in grey.notes[-1]
    assert torch.isfinite(family_of(grey.model).as_chain(grey.model)(images[:, :1, :32, :32])).all()


def test_names_of_classes_and_preprocessing(tmp_path: Path) -> None:
    config = {**PLAIN, "id2label": {0: "zebra", 1: "cat"}, "label2id": {"zebra": 0, "cat": 1}}
    model = of("BeitForImageClassification", "BeitConfig", **config)
    written(model, tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3)
    info = describe_model(load_model(str(tmp_path)))
    assert (info.classes, info.class_names) == (2, ("zebra", "cat"))
    assert (info.mean, info.std, info.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")


def test_random_weights_follow_the_seed_and_a_checkpoint_is_read(tmp_path: Path, same: Any, with_weights: Any) -> None:
    model = with_weights(MODELS["BEiT"]())
    folder = str(written(model, tmp_path))
    assert same(load_model(folder, "random", seed=1), load_model(folder, "random", seed=1))
    torch.save({"state_dict": {f"net.{name}": one for name, one in model.state_dict().items()}}, tmp_path / "a.ckpt")
    assert same(load_model(folder, tmp_path / "a.ckpt"), model)


def test_what_is_refused(tmp_path: Path, refusal: Any) -> None:
    folder = written(MODELS["BEiT"](), tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    assert "is of another architecture than BeitForImageClassification" in refusal(str(folder), tmp_path / "a.pth")
    assert "--image-size 30x30: the model has patches of 8×8" in refusal(str(folder), image_size=(30, 30))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    assert "holds no whole BeitForImageClassification: " in refusal(str(folder))
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 0}))
    assert "cannot be read as a BeitForImageClassification" in refusal(str(folder))


def test_a_folder_without_preprocessing_says_so(tmp_path: Path) -> None:
    MODELS["DINOv3"]().save_pretrained(tmp_path)
    assert any("does not say how images are prepared" in note for note in open_model(str(tmp_path)).notes)
