"""Resizing inside of a file beside the runtime's, which is the builder's bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.artifacts import INFO
from hypothesis import given, settings
from hypothesis import strategies as st

from fimaq_deploy.contract import Contract
from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.errors import UserError
from fimaq_deploy.export.pixels import PIXELS, resizing_model
from fimaq_deploy.export.resizing import require_resizable
from fimaq_deploy.runtime.preprocessing import Preparation

PLAIN = Contract((3, 24, 24), (0.5,) * 3, (0.5,) * 3, (27, 27))
CONTRACTS = {
    "square": PLAIN,
    "bilinear": replace(PLAIN, interpolation="bilinear"),
    "gray": Contract((1, 24, 24), (0.5,), (0.5,), (24, 24)),
    "wide": replace(PLAIN, shape=(3, 20, 33), resize=(22, 37)),
    "squashed": replace(PLAIN, crop_mode="squash", resize=(24, 24)),
}


def picture(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Smooth and noisy, as photographs are."""
    y, x = np.mgrid[0:height, 0:width][..., None]
    waves = 120 + 60 * np.sin(x / 7 + np.arange(channels)) + 50 * np.cos(y / 5)
    noise = np.random.default_rng(seed).normal(0, 8, (height, width, channels))
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", CONTRACTS)
def test_pixels_are_the_exact_ones_but_for_a_level(name: str, tmp_path: Path) -> None:
    """Of the same size, in the same place, for every size of image."""
    contract = CONTRACTS[name]
    session = open_session(resizing_model(contract, tmp_path / "resizing.onnx"), threads=1)
    exact = Preparation(replace(contract, pixels=True))

    @settings(max_examples=20, deadline=None)
    @given(height=st.integers(24, 160), width=st.integers(34, 160), seed=st.integers(0, 9))
    def check(height: int, width: int, seed: int) -> None:
        image = picture(height, width, contract.shape[0], seed)
        own, wanted = session.run(None, {PIXELS: image[None]})[0][0], exact(image)
        assert own.shape == wanted.shape and own.dtype == np.uint8
        away = np.abs(own.astype(int) - wanted.astype(int))
        assert away.max() <= 1 and away.mean() < 0.5

    check()


REFUSED = {
    "opset 17 knows no antialias": (PLAIN, 17),
    "no lanczos filter": (replace(PLAIN, interpolation="lanczos"), 21),
    "filled up \\(border\\)": (replace(PLAIN, crop_mode="border"), 21),
    "filled up \\(center\\)": (replace(PLAIN, resize=(20, 20)), 21),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_onnx_cannot_say_is_refused(message: str) -> None:
    contract, opset = REFUSED[message]
    with pytest.raises(UserError, match=message):
        require_resizable(contract, opset)
    require_resizable(INFO.contract(), 21)
