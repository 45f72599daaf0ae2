"""timm's SwinTransformerV2Cr: the chain of a model answers what the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

SIZE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 20}


@pytest.fixture
def swin(lively: Any) -> Any:
    return lambda **changes: lively(lambda: SwinTransformerV2Cr(**{**SIZE, "window_size": 4, **changes}))


@pytest.mark.parametrize(
    "changes", [{}, {"window_size": 3, "img_size": (36, 52)}, {"extra_norm_period": 1, "num_classes": 0}]
)
def test_the_chain_answers_what_the_model_does(changes: Any, swin: Any, equals_its_chain: Any) -> None:
    equals_its_chain(swin(**changes))


@pytest.mark.slow
def test_the_whole_road(swin: Any, whole_road: Any, tmp_path: Path) -> None:
    _, cosine = whole_road(swin(), tmp_path)
    assert cosine > 0.99


def test_images_of_any_size_are_refused(swin: Any) -> None:
    model = swin(strict_img_size=False)
    with pytest.raises(UserError, match=r"^module 'stages.0.blocks.0': images of any size are not understood"):
        family_of(model).check(model)
