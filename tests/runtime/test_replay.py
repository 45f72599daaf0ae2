from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.runtime.replay import REPLAY, Replay, draw_picture


def test_the_replay_is_read_as_it_was_written(artifact: Path, tmp_path: Path) -> None:
    replay = Replay.load(artifact / REPLAY)
    replay.save(tmp_path / "again.npz")
    again = Replay.load(tmp_path / "again.npz")
    assert np.array_equal(again.images, replay.images) and again.rows.keys() == replay.rows.keys()
    (tmp_path / "again.npz").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="no images to replay"):
        Replay.load(tmp_path / "again.npz")


def test_rows_of_another_number_of_images_are_refused(tmp_path: Path) -> None:
    Replay(np.zeros((2, 1, 4, 4), np.float32), {"row": {"logits": np.zeros((3, 5))}}).save(tmp_path / "x.npz")
    with pytest.raises(UserError, match="another number of images"):
        Replay.load(tmp_path / "x.npz")


def test_an_output_may_have_a_slash_in_its_name(tmp_path: Path) -> None:
    Replay(np.zeros((2, 1, 4, 4), np.float32), {"row": {"a/b": np.ones((2, 5))}}).save(tmp_path / "x.npz")
    assert np.array_equal(Replay.load(tmp_path / "x.npz").rows["row"]["a/b"], np.ones((2, 5)))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_is_drawn_the_same_every_time(channels: int) -> None:
    first, second = draw_picture(channels, 16, 24), draw_picture(channels, 16, 24)
    assert np.array_equal(first, second) and first.dtype == np.uint8
    assert first.shape == ((24, 43) if channels == 1 else (24, 43, 3))
    assert first.std() > 20
