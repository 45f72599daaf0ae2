from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline.replays import make_replay
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.runtime.preprocessing import Preparation

ORIGINAL = Candidate("original", "Original", lambda images: images.sum((1, 2, 3))[:, None], original=True)
ROW = Candidate("row", "Row", lambda images: {"logits": images.mean((2, 3)), "more": images[:, 0]})
ABSENT = Candidate("absent", "Absent", None, not_run="it is not here")


def test_it_holds_the_first_images_and_what_each_quantized_row_made_of_them(colour: ModelInfo) -> None:
    images = torch.randn(6, 3, 16, 16)
    replay = make_replay([ORIGINAL, ROW, ABSENT], as_source(images), colour, 4)
    assert replay is not None and np.array_equal(replay.images, images[:4].numpy())
    assert replay.rows.keys() == {"row"} and replay.rows["row"]["more"].shape == (4, 16, 16)
    assert np.array_equal(replay.rows["row"]["logits"], images[:4].numpy().mean((2, 3)))


def test_the_picture_is_prepared_by_the_builder(colour: ModelInfo, grey: ModelInfo) -> None:
    for info in (colour, grey):
        replay = make_replay([ROW], as_source(torch.randn(2, *info.input_shape)), info, 1)
        assert replay is not None and replay.picture is not None and replay.prepared is not None
        assert np.array_equal(Preparation(info.contract())(Image.fromarray(replay.picture)), replay.prepared)


def test_none_are_kept_where_none_are_asked_for(colour: ModelInfo) -> None:
    assert make_replay([ROW], as_source(torch.randn(2, 3, 16, 16)), colour, 0) is None


def test_large_images_are_few(colour: ModelInfo) -> None:
    from dataclasses import replace

    large = replace(colour, input_shape=(3, 900, 900))
    replay = make_replay([ROW], as_source(torch.randn(2, 3, 900, 900)), large, 8)
    assert replay is not None and len(replay.images) == 1
