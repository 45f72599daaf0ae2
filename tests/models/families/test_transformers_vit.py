"""Hugging Face's plain transformers: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
IMAGES = {"image_size": 32, "patch_size": 8, "num_labels": 20}
CLIP = {**SIZE, "image_size": 32, "patch_size": 8}


def clip(**more: Any) -> Any:
    return hf.CLIPConfig(vision_config=CLIP, text_config={**SIZE, "vocab_size": 99}, **more)


MODELS: dict[str, Any] = {
    "ViTModel": lambda: hf.ViTModel(hf.ViTConfig(**SIZE, **IMAGES)),
    "ViTForImageClassification": lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZE, **IMAGES)),
    "DeiTModel": lambda: hf.DeiTModel(hf.DeiTConfig(**SIZE, **IMAGES), add_pooling_layer=False),
    "DeiTForImageClassification": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**SIZE, **IMAGES)),
    "Dinov2Model": lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZE, **IMAGES)),
    "Dinov2ForImageClassification": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**SIZE, **IMAGES)),
    "DINOv2 with SwiGLU": lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZE, **IMAGES, use_swiglu_ffn=True)),
    "Dinov2WithRegistersModel": lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**SIZE, **IMAGES)),
    "Dinov2WithRegistersForImageClassification": lambda: hf.Dinov2WithRegistersForImageClassification(
        hf.Dinov2WithRegistersConfig(**SIZE, **IMAGES)
    ),
    "DINOv3ViTModel": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**SIZE, **IMAGES, num_register_tokens=4)),
    "DINOv3 gated": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**SIZE, **IMAGES, use_gated_mlp=True)),
    "ViTMSNModel": lambda: hf.ViTMSNModel(hf.ViTMSNConfig(**SIZE, **IMAGES)),
    "ViTMSNForImageClassification": lambda: hf.ViTMSNForImageClassification(hf.ViTMSNConfig(**SIZE, **IMAGES)),
    "IJepaModel": lambda: hf.IJepaModel(hf.IJepaConfig(**SIZE, **IMAGES)),
    "IJepaForImageClassification": lambda: hf.IJepaForImageClassification(hf.IJepaConfig(**SIZE, **IMAGES)),
    "CLIPVisionModel": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**CLIP)),
    "CLIPVisionModelWithProjection": lambda: hf.CLIPVisionModelWithProjection(
        hf.CLIPVisionConfig(**CLIP, projection_dim=48)
    ),
    "SiglipVisionModel": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**CLIP)),
    "SigLIP without a head": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**CLIP, vision_use_head=False)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_chain_answers_what_the_model_does(kind: str, lively: Any, equals_its_chain: Any) -> None:
    equals_its_chain(lively(MODELS[kind]))


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "DINOv3ViTModel", "SiglipVisionModel"])
def test_the_whole_road(kind: str, lively: Any, whole_road: Any, tmp_path: Path) -> None:
    quantized, cosine = whole_road(lively(MODELS[kind]), tmp_path)
    assert cosine > 0.99
    assert not any(name.startswith("blocks") for name in quantized.left_alone)


def test_positions_are_resampled_as_the_model_does(lively: Any) -> None:
    model, images = lively(MODELS["Dinov2Model"]), torch.randn(2, 3, 48, 40)
    chain = family_of(model).as_chain(model, (3, 48, 40))
    torch.testing.assert_close(chain(images), model(images).pooler_output, rtol=1e-4, atol=1e-4)
