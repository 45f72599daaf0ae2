"""A build of each kind of model that users deploy ends well, and judges what the model answers as what it is.

The originals are drawn, small and sharp: images get answers that differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fimaq_deploy import Recipe
from fimaq_deploy.pipeline.builds import build
from fimaq_deploy.report.schema import Report

QUICK = Recipe.load("w8a8").replace(
    reconstruction={"iterations": 2, "images": 16},
    scale_search={"candidates": 20, "images": 16},
    tuning={"iterations": 0},
)
SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def sharp(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "pos_embed" not in name:
                parameter.copy_(0.08 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def vit(classes: int = 12, **options: object) -> VisionTransformer:
    return sharp(VisionTransformer(**{**SIZE, "num_classes": classes, **options}))


class Around(nn.Module):
    """A model in a module of the user's, as training codes keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = vit()

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)


class Pair(nn.Module):
    """Two heads on one vector, answered as a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.pose = nn.Linear(48, 5), nn.Linear(48, 3)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.kind(features), self.pose(features)


def two_heads() -> nn.Module:
    model = vit()
    model.head = Pair()
    return sharp(model)


class LowRank(nn.Linear):
    """An adapter that is a Linear itself and adds a product of two thin matrices."""

    def __init__(self, around: nn.Linear) -> None:
        super().__init__(around.in_features, around.out_features)
        self.load_state_dict(around.state_dict())
        self.thin = nn.Parameter(0.3 * torch.randn(3, around.in_features))
        self.wide = nn.Parameter(0.3 * torch.randn(around.out_features, 3))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + (images @ self.thin.T) @ self.wide.T


def adapted() -> nn.Module:
    torch.manual_seed(2)
    model = vit()
    for block in model.blocks:
        block.mlp.fc1 = LowRank(block.mlp.fc1)
    return model.eval()


def torchvision_vit() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    sizes = {"num_layers": 2, "num_heads": 3, "hidden_dim": 48, "mlp_dim": 96}
    return sharp(models.VisionTransformer(image_size=32, patch_size=8, num_classes=12, **sizes))


def hugging_face_vit() -> nn.Module:
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    return sharp(hf.ViTForImageClassification(hf.ViTConfig(image_size=32, patch_size=8, num_labels=12, **sizes)))


# By name: how it is made, and the kinds of its outputs.
MODELS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "embedding": (lambda: vit(0), ["embedding"]),
    "tokens": (lambda: vit(0, global_pool=""), ["dense"]),
    "map": (
        lambda: sharp(
            SwinTransformer(
                img_size=32,
                patch_size=2,
                embed_dim=24,
                depths=(1, 1),
                num_heads=(2, 4),
                window_size=4,
                num_classes=0,
                global_pool="",
            )
        ),
        ["dense"],
    ),
    "one number": (lambda: vit(1), ["regression"]),
    "pooled by attention": (lambda: vit(0, class_token=False, global_pool="map"), ["embedding"]),
    "half precision": (lambda: vit().half(), ["classes"]),
    "in a module of the user's": (Around, ["classes"]),
    "two heads": (two_heads, ["embedding", "embedding"]),  # nothing says that one is of classes, but `--task`
    "an adapter that is a subclass": (adapted, ["classes"]),
    "twelve channels": (lambda: vit(in_chans=12), ["classes"]),
    "torchvision": (torchvision_vit, ["classes"]),
    "Hugging Face": (hugging_face_vit, ["classes"]),
}


def built(make: Callable[[], nn.Module], folder: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> Report:
    """What the build of a module by a factory of that name reports."""
    model = make()
    (folder / "originals.py").write_text("def make():\n    return made\n")
    monkeypatch.syspath_prepend(str(folder))
    import originals  # type: ignore[import-not-found]

    originals.made = model
    channels = next(p for n, p in model.named_parameters() if p.ndim == 4).shape[1]
    images = np.random.default_rng(0).standard_normal((24, channels, 32, 32), np.float32)
    made = build(
        "originals:make", images=images, recipe=QUICK, targets=("onnxruntime-cpu",), out=folder / "out", **options
    )
    monkeypatch.delitem(__import__("sys").modules, "originals")
    return made.report


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_is_built_and_judged_as_what_it_answers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, kinds = MODELS[name]
    report = built(make, tmp_path, monkeypatch)
    assert [output.task for output in report.outputs] == kinds
    for row_id, least in (("onnx-fp32", 0.9999), ("onnxruntime-cpu", 0.98)):
        row = report.row(row_id)
        assert row is not None and row.original is not None and row.original.to == "pytorch-fp32"
        closeness = [figure.value for figure in row.original.figures if figure.name in ("cosine", "concordance")]
        assert len(closeness) == len(kinds) and min(value for value in closeness if value is not None) > least
        # Where the most probable class means nothing, nothing is said of it.
        assert (row.original.agreement is None) == (kinds != ["classes"])


@pytest.mark.slow
def test_several_labels_are_judged_label_by_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = built(lambda: vit(20), tmp_path, monkeypatch, task="multilabel")
    assert [output.task for output in report.outputs] == ["multilabel"]
    row = report.row("onnxruntime-cpu")
    assert row is not None and row.original is not None and row.original.agreement is None
    assert "agreement" in {figure.name for figure in row.original.figures}


@pytest.mark.slow
def test_levels_of_features_are_judged_as_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = {**SIZE, "out_indices": (0, 1)}
    report = built(
        lambda: sharp(timm.create_model("vit_tiny_patch16_224", features_only=True, **size)), tmp_path, monkeypatch
    )
    assert [output.task for output in report.outputs] == ["dense", "dense"]
    row = report.row("onnxruntime-cpu")
    assert row is not None and row.original is not None
    assert min(one.value for one in row.original.figures if one.name == "cosine" and one.value is not None) > 0.98
