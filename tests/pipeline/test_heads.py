from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fixtures.detectors import segmenter

from fimaq_deploy.pipeline.heads import Written, with_head, write_head
from fimaq_deploy.pipeline.whole import Whole
from fimaq_deploy.runtime.head import HEAD, HeadRunner
from fimaq_deploy.runtime.replay import Replay


def test_a_head_computes_what_stands_behind_the_encoder(tmp_path: Path) -> None:
    whole, images = Whole.of(segmenter()), torch.rand(3, 3, 32, 32)
    written = write_head(tmp_path, whole, (32, 32), images, "segmentation", ("a", "b", "c"))
    assert written.facts is not None and written.facts.classes == ("a", "b", "c")
    assert "of 3 images" in written.note
    with torch.no_grad():
        maps = {str(n): one.numpy() for n, one in enumerate(whole.encoder(images))}
        expected = whole.model(images).numpy()
    found = np.stack([next(iter(one.values())) for one in HeadRunner(tmp_path / HEAD)(maps)])
    assert np.allclose(found, expected, atol=1e-5)
    kept = with_head(Replay(images.numpy(), {"onnx-reference": maps}), tmp_path, written.facts)
    kept.save(tmp_path / "replay.npz")
    assert len(Replay.load(tmp_path / "replay.npz").answers) == 3


def test_what_torch_cannot_write_is_left_out_with_its_reason(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    model = segmenter()
    model.decoder = torch.nn.Sequential(model.decoder, Odd())
    written = write_head(tmp_path, Whole.of(model), (32, 32), torch.rand(1, 3, 32, 32), "dense", ())
    assert written.facts is None and written.note.startswith("head.onnx was left out")
    assert not (tmp_path / HEAD).exists()


def test_an_encoder_alone_has_none(tmp_path: Path) -> None:
    encoder = Whole.of(segmenter().encoder)
    assert write_head(tmp_path, encoder, (32, 32), torch.rand(1, 3, 32, 32), "dense", ()) == Written()
