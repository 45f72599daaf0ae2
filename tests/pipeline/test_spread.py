from __future__ import annotations

import pytest
import torch

from fimaq_deploy.pipeline.spread import Spread


@pytest.mark.parametrize(("count", "kept"), [(3, 3), (8, 8), (9, 5), (100, 7)])
def test_images_are_kept_evenly_from_the_first_to_near_the_last(count: int, kept: int) -> None:
    spread = Spread(8)
    for batch in torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).split(3):
        spread.add(batch)
    found = spread.images.flatten()
    steps = found.diff().unique()
    assert len(found) == kept and len(steps) == 1 and found[0] == 0
    assert count - found[-1] <= steps[0]
