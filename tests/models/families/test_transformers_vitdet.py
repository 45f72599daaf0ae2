"""ViTDet: windows, whole maps and positions relative to queries, inside of a model that mattes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")


def matting(**changes: Any) -> Any:
    size = {"image_size": 64, "pretrain_image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 3}
    windows = {"window_size": 3, "window_block_indices": [0, 2], "use_relative_position_embeddings": True}
    body = hf.VitDetConfig(**{**size, **windows, "num_channels": 4, "num_attention_heads": 2, **changes})
    narrow = {"convstream_hidden_sizes": [8, 8, 8], "fusion_hidden_sizes": [16, 8, 8, 8]}
    return hf.VitMatteForImageMatting(hf.VitMatteConfig(backbone_config=body, hidden_size=32, **narrow))


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (4, 64, 64)),
        ({}, (4, 96, 64)),  # tables and positions that are resampled
        ({"use_relative_position_embeddings": False}, (4, 64, 64)),
    ],
)
def test_the_chain_in_its_place_changes_nothing(
    changes: Any, shape: tuple[int, int, int], lively: Any, same_with_its_chain: Any
) -> None:
    same_with_its_chain(lively(lambda: matting(**changes)), "backbone", shape)


@pytest.mark.slow
def test_deployed_inside(lively: Any, deployed_inside: Any, tmp_path: Path) -> None:
    deployed_inside(lively(matting), (4, 64, 64), tmp_path)


@torch.no_grad()
def test_several_maps_and_the_stem(lively: Any) -> None:
    model = lively(lambda: matting(out_features=["stem", "stage2"])).backbone
    family = family_of(model)
    images = torch.rand(2, 4, 64, 64)
    found, expected = family.as_chain(model, (4, 64, 64))(images), model(images).feature_maps
    assert list(found) == ["stem", "stage2"]
    assert all((one - other).abs().max() < 1e-4 for one, other in zip(found.values(), expected, strict=True))


def test_convolutions_between_blocks_are_refused(lively: Any) -> None:
    model = lively(lambda: matting(residual_block_indices=[1])).backbone
    with pytest.raises(UserError, match=r"^module 'encoder.layer.1.residual': convolutions between blocks"):
        family_of(model).check(model)
