"""Patches of 14 and 8, 1 to 16 channels and images that are not square, from timm's classes to a file that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import fimaq_deploy as fd
from fimaq_deploy.models.describe import image_shape

VIT = {"embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 8}
SWIN = {"embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4, "patch_size": 2, "num_classes": 8}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "patches of 14": lambda: VisionTransformer(img_size=(42, 28), patch_size=14, in_chans=3, **VIT),
    "patches of 14, registers": lambda: VisionTransformer(img_size=28, patch_size=14, reg_tokens=4, **VIT),
    "patches of 8": lambda: VisionTransformer(img_size=(24, 40), patch_size=8, in_chans=1, **VIT),
    "patches that are not square": lambda: VisionTransformer(img_size=(32, 32), patch_size=(8, 16), **VIT),
    "2 channels": lambda: VisionTransformer(img_size=32, patch_size=8, in_chans=2, **VIT),
    "13 channels": lambda: VisionTransformer(img_size=32, patch_size=16, in_chans=13, **VIT),
    "16 channels": lambda: VisionTransformer(img_size=32, patch_size=8, in_chans=16, **VIT),
    "Swin, 4 channels": lambda: SwinTransformer(img_size=(16, 32), in_chans=4, **SWIN),
    "SwinV2, 6 channels": lambda: SwinTransformerV2(img_size=(32, 16), in_chans=6, **SWIN),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime-cpu", "tensorrt-rtx"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_the_file_computes_what_was_quantized(make: Any, target: str, quick_recipe: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make().eval()
    images = torch.randn(16, *image_shape(model))
    recipe = quick_recipe(weights={"bits": 8}, activations={"bits": 8}, reconstruction={"iterations": 0})
    quantized = fd.quantize(model, images, recipe, target)
    file = fd.export_onnx(quantized, tmp_path / "model.onnx", target=target)
    with torch.no_grad():
        whole, there = model(images), quantized(images)
    assert torch.nn.functional.cosine_similarity(whole.flatten(), there.flatten(), 0) > 0.99
    run = torch.from_numpy(fd.load_engine(file, optimisations=False)(images.numpy()))
    assert (run - there).square().mean().sqrt() <= 0.05 * there.std()  # TensorRT's file adds up in FP16
