"""Folders that `transformers` writes, against `transformers` itself; the timm model has to compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.fit import Sizes
from fimaq_deploy.models.hugging_face import preprocessing_of, ratio_of
from fimaq_deploy.models.load import load_model, open_model

transformers = pytest.importorskip("transformers")

Refusal = Callable[..., str]
Stirred = Callable[[Any], Any]
Difference = Callable[[torch.Tensor, torch.Tensor], float]

SIZE = {"image_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WINDOWS = {"image_size": 32, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
DINO = {**SIZE, "patch_size": 8}


def of(name: str, config: str, **settings: Any) -> Any:
    return getattr(transformers, name)(getattr(transformers, config)(**settings))


MODELS: dict[str, Callable[[], Any]] = {
    "ViT, classifier": lambda: of("ViTForImageClassification", "ViTConfig", **SIZE, num_labels=5),
    "ViT, encoder": lambda: of("ViTModel", "ViTConfig", **SIZE),
    "ViT without biases, tanh": lambda: of("ViTModel", "ViTConfig", **SIZE, qkv_bias=False, hidden_act="gelu_new"),
    "ViT, grey and not square": lambda: of(
        "ViTModel", "ViTConfig", **{**SIZE, "image_size": [32, 48], "num_channels": 1}
    ),
    "DeiT, two heads": lambda: of("DeiTForImageClassificationWithTeacher", "DeiTConfig", **SIZE, num_labels=5),
    "DeiT, one head": lambda: of("DeiTForImageClassification", "DeiTConfig", **SIZE, num_labels=5),
    "DeiT, encoder": lambda: of("DeiTModel", "DeiTConfig", **SIZE),
    "Swin, classifier": lambda: of("SwinForImageClassification", "SwinConfig", **WINDOWS, num_labels=5),
    "Swin, encoder": lambda: of("SwinModel", "SwinConfig", **WINDOWS),
    "DINOv2": lambda: of("Dinov2Model", "Dinov2Config", **DINO),
    "DINOv2, gated": lambda: of("Dinov2Model", "Dinov2Config", **DINO, use_swiglu_ffn=True),
    "DINOv2 with registers": lambda: of("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **DINO),
    "ViT-MAE, encoder": lambda: of("ViTMAEModel", "ViTMAEConfig", **SIZE, mask_ratio=0.0),
}


def answer(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Logits, or the features that a headless timm model answers: the class token, or the mean of Swin's tokens."""
    found = model(images)
    if hasattr(found, "logits"):
        return found.logits
    return found.pooler_output if "Swin" in type(model).__name__ else found.last_hidden_state[:, 0]


def written(model: Any, folder: Path, **processor: Any) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, "size": 32, **processor}))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_a_folder_computes_what_transformers_does(
    kind: str, tmp_path: Path, with_weights: Stirred, relative_difference: Difference
) -> None:
    model = with_weights(MODELS[kind]())
    loaded = open_model(str(written(model, tmp_path)))
    info = describe_model(loaded.model)
    images = torch.randn(2, *info.input_shape)
    assert relative_difference(loaded.model(images), answer(model, images)) < 1e-5
    assert any("translated from Hugging Face" in note for note in loaded.notes)


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_a_module_of_this_version_saved_by_torch(
    kind: str, tmp_path: Path, with_weights: Stirred, relative_difference: Difference
) -> None:
    """Its names are not those of its files, and a trainer puts its own before them."""
    model = with_weights(MODELS[kind]())
    folder = written(model, tmp_path)
    torch.save({"state_dict": {f"net.{name}": one for name, one in model.state_dict().items()}}, tmp_path / "a.ckpt")
    module = load_model(str(folder), tmp_path / "a.ckpt")
    images = torch.randn(2, *describe_model(module).input_shape)
    assert relative_difference(module(images), answer(model, images)) < 1e-5


def test_shards(tmp_path: Path, with_weights: Stirred) -> None:
    model = with_weights(MODELS["ViT, classifier"]())
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(load_model(str(tmp_path))(images), model(images).logits, atol=1e-5)


def test_names_of_classes_and_preprocessing(tmp_path: Path) -> None:
    config = {**SIZE, "id2label": {0: "zebra", 1: "cat"}, "label2id": {"zebra": 0, "cat": 1}}
    model = of("ViTForImageClassification", "ViTConfig", **config)
    written(model, tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3)
    info = describe_model(load_model(str(tmp_path)))
    assert (info.classes, info.class_names) == (2, ("zebra", "cat"))
    assert (info.mean, info.std, info.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")
    assert (info.crop_pct, info.crop_mode) == (1.0, "squash")


def test_names_that_stand_in_for_names_are_none(tmp_path: Path) -> None:
    model = of("ViTForImageClassification", "ViTConfig", **SIZE, num_labels=3)
    assert describe_model(load_model(str(written(model, tmp_path)))).class_names == ()


def test_without_preprocessing_the_guess_is_said(tmp_path: Path) -> None:
    MODELS["ViT, encoder"]().save_pretrained(tmp_path)
    assert any("does not say how images are prepared" in note for note in open_model(str(tmp_path)).notes)


def test_another_image_size_and_random_weights(tmp_path: Path) -> None:
    written(MODELS["ViT, classifier"](), tmp_path)
    loaded = open_model(str(tmp_path), sizes=Sizes((64, 64)))
    assert describe_model(loaded.model).input_shape == (3, 64, 64)
    assert loaded.notes[-1].startswith("resampled for the size that was asked for: pos_embed")
    assert describe_model(load_model(str(tmp_path), "random", image_size=(16, 48))).input_shape == (3, 16, 48)


def test_weights_under_a_timm_name(tmp_path: Path, with_weights: Stirred, relative_difference: Difference) -> None:
    """A checkpoint of `transformers` for the architecture that timm calls so."""
    big = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    model = of("ViTForImageClassification", "ViTConfig", **big, num_labels=5, layer_norm_eps=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05)
    model.eval().save_pretrained(tmp_path)
    images = torch.randn(1, 3, 224, 224)
    found = load_model("vit_tiny_patch16_224", tmp_path)(images)
    assert relative_difference(found, model(images).logits) < 1e-4


# --- what is refused ---


def test_architectures_that_nobody_here_makes(tmp_path: Path, refusal: Refusal) -> None:
    written(of("ConvNextModel", "ConvNextConfig", hidden_sizes=[8, 8], depths=[1, 1], num_stages=2), tmp_path)
    assert "holds a model of type convnext: expected one of vit, vit_mae, deit" in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ("{}", "holds a model of type None"),
        ('{"model_type": ["vit"]}', "holds a model of type ['vit']"),
        ('{"model_type": "vit"}', "does not describe a vit model: 'hidden_size'"),
        ('{"model_type": "vit", "hidden_size": 0}', "does not describe a vit model"),
        ('{"model_type": "swin", "embed_dim": "x"}', "does not describe a swin model"),
        ("[" * 100_000, "cannot be read"),
        ('{"architecture": "no_such_model"}', "Unknown model"),
        ('{"architecture": "resnet18"}', "is a ResNet"),
    ],
)
def test_bad_configurations(tmp_path: Path, content: str, reason: str, refusal: Refusal) -> None:
    (tmp_path / "config.json").write_text(content)
    assert reason in refusal(str(tmp_path))


def test_a_folder_without_weights(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", **SIZE}))
    assert "holds no weights" in refusal(str(tmp_path))


def test_weights_of_another_configuration(tmp_path: Path, refusal: Refusal) -> None:
    written(MODELS["ViT, classifier"](), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "is of another architecture" in refusal(str(tmp_path))


# --- preprocessing ---


def said(folder: Path, **content: Any) -> dict[str, Any]:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return preprocessing_of(folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"size": 224}, (1.0, "squash")),
        ({"size": {"height": 224, "width": 224}}, (1.0, "squash")),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, (0.875, "squash")),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            (0.875, "center"),
        ),
        ({"size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True}, (1.0, "center")),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": False}, (1.0, "center")),
        ({}, (1.0, "squash")),
    ],
)
def test_sizes_in_timms_words(tmp_path: Path, content: Any, expected: Any) -> None:
    found = said(tmp_path, **content)
    assert (found["crop_pct"], found["crop_mode"]) == expected


@pytest.mark.parametrize("side", range(225, 700, 7))
def test_the_share_leads_to_the_side_that_is_meant(tmp_path: Path, side: int) -> None:
    found = said(tmp_path, size={"shortest_edge": side}, crop_size=224, do_center_crop=True)
    assert int(224 / found["crop_pct"]) == side


def test_scales_that_are_not_255(tmp_path: Path) -> None:
    found = said(tmp_path, do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3)
    assert (found["mean"], found["std"]) == ((0.5,) * 3, (0.5,) * 3)
    found = said(tmp_path, rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3)
    assert found["mean"] == pytest.approx((0.5,) * 3)
    found = said(tmp_path, do_normalize=False)
    assert (found["mean"], found["std"]) == ((0.0,), (1.0,))


def test_a_processor_of_version_5(tmp_path: Path) -> None:
    content = {"image_processor": {"image_mean": [0.1, 0.1, 0.1], "image_std": [0.2, 0.2, 0.2], "resample": 0}}
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    assert preprocessing_of(tmp_path)["interpolation"] == "nearest"


@pytest.mark.parametrize(
    "content",
    [{"resample": 99}, {"image_mean": "x"}, {"size": {"longest_edge": 3}}, {"rescale_factor": 0}, {"size": [1, 2]}],
)
def test_bad_preprocessing(tmp_path: Path, content: Any, refusal: Refusal) -> None:
    written(MODELS["ViT, encoder"](), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    assert "does not say how images are prepared" in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("width", "inner"), [(768, 3072), (1408, 6144), (1536, 8192), (384, 1000), (17, 100), (1000, 3)]
)
def test_the_ratio_gives_the_width_that_is_meant(width: int, inner: int) -> None:
    assert int(width * ratio_of(width, inner)) == inner


# --- folders that timm writes ---


def test_a_folder_that_timm_wrote(tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    trained = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, depth=1).eval()
    arguments = {"img_size": 32, "depth": 1}
    save_for_hf(trained, tmp_path, model_config={"label_names": ["a", "b", "c"]}, model_args=arguments)
    images = torch.rand(1, 3, 32, 32)
    for name in (str(tmp_path), f"local-dir:{tmp_path}"):
        module: nn.Module = load_model(name)
        assert torch.equal(module(images), trained(images))
        assert describe_model(module).class_names == ("a", "b", "c")
