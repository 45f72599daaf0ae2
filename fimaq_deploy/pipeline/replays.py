"""What a build keeps so that `verify` can run it again on another machine."""

from __future__ import annotations

from collections.abc import Sequence

from fimaq_deploy.contract import COLOURS
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.measure.outputs import running
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.pipeline.rows import Candidate
from fimaq_deploy.runtime.replay import Array, Replay, draw_picture

_MOST_BYTES = 8 * 2**20  # of images; one is kept in any case


def make_replay(candidates: Sequence[Candidate], images: ImageSource, info: ModelInfo, count: int) -> Replay | None:
    """Up to `count` images with the outputs of every quantized row that runs here; None for a count of 0."""
    if not count:
        return None
    channels, height, width = info.input_shape
    few = images.take(max(1, min(count, _MOST_BYTES // (4 * channels * height * width))))
    rows: dict[str, dict[str, Array]] = {}
    for one in candidates:
        if one.run is not None and not one.original:
            with running(one.run) as run:
                rows[one.id] = run(few)
    picture, prepared = _drawn(info)
    return Replay(few.numpy(), rows, picture, prepared)


def _drawn(info: ModelInfo) -> tuple[Array, Array] | tuple[None, None]:
    """The picture, and what the builder makes of it."""
    from PIL import Image

    if info.input_shape[0] not in COLOURS:
        return None, None
    picture = draw_picture(*info.input_shape)
    return picture, Preparation(info).image(Image.fromarray(picture)).numpy()
