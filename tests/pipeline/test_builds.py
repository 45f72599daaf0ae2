"""Every form of images is one to build with: the same batches give the same bytes, whatever holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fimaq_deploy.pipeline.builds import BuildResult, build

FACTORY = """
import torch
from timm.models.vision_transformer import VisionTransformer

def make():
    torch.manual_seed(0)
    return VisionTransformer(img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=4).eval()
"""
IMAGES = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 4


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from zip(IMAGES.split(4), LABELS.split(4), strict=True)


FORMS: dict[str, Callable[[], Any]] = {
    "array": lambda: IMAGES.numpy(),
    "pair": lambda: (IMAGES, LABELS),
    "mapping": lambda: {"pixel_values": IMAGES, "labels": LABELS},
    "list of pairs": lambda: list(batches()),
    "generator": batches,
    "mappings": lambda: [{"images": x, "labels": y} for x, y in batches()],
    "DataLoader": lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), batch_size=4),
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., BuildResult]]:
    folder = tmp_path_factory.mktemp("forms")
    (folder / "forms_model.py").write_text(FACTORY)

    def made(name: str, images: Any, **options: Any) -> BuildResult:
        result = build(
            "forms_model:make",
            images=images,
            settings=["reconstruction.images=16", "reconstruction.iterations=2", "tuning.iterations=0"],
            targets="onnxruntime-cpu",
            out=folder / name,
            **options,
        )
        assert result is not None
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield made


@pytest.fixture(scope="module")
def from_a_file(make: Callable[..., BuildResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("file") / "images.npy"
    np.save(file, IMAGES.numpy())
    return make("file", file).out


QUICK = ("pair", "generator")


@pytest.mark.parametrize(
    "form", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FORMS]
)
def test_all_forms_give_the_bytes_of_a_file(form: str, make: Callable[..., BuildResult], from_a_file: Path) -> None:
    found = make(form, FORMS[form](), eval_images=FORMS["mappings" if form == "pair" else "generator"]())
    assert (found.out / "model.onnx").read_bytes() == (from_a_file / "model.onnx").read_bytes()
    assert found.report.data.evaluation_images == 16 and found.report.data.labelled
    assert found.report.row("onnxruntime-cpu").accuracy.images == 16
    assert "of a program" in found.report.command
