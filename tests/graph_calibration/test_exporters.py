"""Files as people have them, exported here from small models of `transformers` and timm, on the whole road."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fimaq_deploy import Recipe, audit
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.graph_calibration.given import Given
from fimaq_deploy.graph_calibration.intake import Network, read_network
from fimaq_deploy.graph_calibration.proof import require_same
from fimaq_deploy.graph_calibration.quantization import QuantizedGraph, quantize_network

pytestmark = pytest.mark.slow

SIDE = 32
IMAGES = np.random.default_rng(0).normal(size=(32, 3, SIDE, SIDE)).astype(np.float32)


class Answer(nn.Module):
    """What `optimum` writes of a model: one output, by its name."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found = self.model(pixel_values)
        return found if isinstance(found, torch.Tensor) else getattr(found, self.name)


def hugging_face(kind: str) -> nn.Module:
    hub = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = {**sizes, "image_size": SIDE, "patch_size": 8}
    made: Callable[..., nn.Module] = {
        "vit": lambda: Answer(hub.ViTForImageClassification(hub.ViTConfig(**config, num_labels=20)), "logits"),
        "dinov2": lambda: Answer(hub.Dinov2Model(hub.Dinov2Config(**config)), "last_hidden_state"),
        "siglip": lambda: Answer(hub.SiglipVisionModel(hub.SiglipVisionConfig(**config)), "pooler_output"),
        "beit": lambda: Answer(hub.BeitModel(hub.BeitConfig(**config)), "last_hidden_state"),
    }[kind]
    return made()


def of_timm() -> nn.Module:
    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 20}
    return timm.models.vision_transformer.VisionTransformer(**sizes)


def exported(model: nn.Module, path: Path, *, newer: bool) -> Path:
    one = (torch.zeros(2, 3, SIDE, SIDE),)
    if newer:
        torch.onnx.export(model.eval(), one, str(path), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
    else:  # every side free, as `optimum` writes it
        free = {"pixel_values": {0: "batch", 1: "channels", 2: "height", 3: "width"}}
        torch.onnx.export(
            model.eval(),
            one,
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["pixel_values"],
            dynamic_axes=free,
        )
    return path


@pytest.fixture(scope="module", params=["vit", "dinov2", "beit", "siglip", "timm"])
def files(request: pytest.FixtureRequest, tmp_path_factory) -> dict[str, Path]:
    torch.manual_seed(0)
    model = of_timm() if request.param == "timm" else hugging_face(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    return {how: exported(model, folder / f"{how}.onnx", newer=how == "newer") for how in ("newer", "older")}


def quantized(path: Path) -> tuple[Network, QuantizedGraph]:
    network = read_network(path, (SIDE, SIDE), 3)
    require_same(network, Given(network), IMAGES[:3])
    targets = ["onnxruntime-cpu", "tensorrt-rtx"]
    return network, quantize_network(network, as_source(IMAGES), Recipe.load("w8a8"), targets)


@pytest.mark.parametrize("how", ["newer", "older"])
def test_eight_bits_keep_the_answer_of_every_exporter(how: str, files: dict[str, Path], tmp_path: Path) -> None:
    network, made = quantized(files[how])
    path = made.traced(None).write(tmp_path / "model.onnx")
    (found, *_) = open_session(path).run(None, {"images": IMAGES})
    wanted = next(iter(Given(network)(IMAGES).values()))
    assert np.sum(found * wanted) / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.999
    pooled = 1 if "siglip" in str(files[how]) else 0  # attention of a learned query, found as every other
    assert len(made.found.layers) >= 10 and len(made.parts.heads) == 2 + pooled and not made.plan.kept


@pytest.mark.parametrize("how", ["newer", "older"])
def test_its_engine_multiplies_integers_and_fuses_attention(how: str, files: dict[str, Path], tmp_path: Path) -> None:
    if find_runtime("tensorrt-rtx").availability()[0] is not None:
        pytest.skip("TensorRT-RTX does not compile here")
    _, made = quantized(files[how])
    path = made.traced(None).write(tmp_path / "model.onnx", "tensorrt-rtx")
    (found,) = audit(path, "tensorrt-rtx")
    assert not found.broken
    assert all(block.gemms == block.int8_gemms for block in found.blocks)
    assert {block.attention for block in found.blocks} <= {"int8", None}
