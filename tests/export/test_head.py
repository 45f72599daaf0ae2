from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fixtures.detectors import detector

from fimaq_deploy.export.head import encoder_maps, export_head
from fimaq_deploy.models.inside import find_backbone
from fimaq_deploy.runtime.head import HeadRunner, differences, remembered


def test_objects_of_a_torchvision_detector(tmp_path: Path) -> None:
    model = detector().eval()
    inside = find_backbone(model)
    with torch.no_grad():
        images = torch.rand(2, 3, 32, 32)
        head = export_head(model, inside, (32, 32), images[:1], tmp_path / "head.onnx")
        assert head.outputs == ("boxes", "labels", "scores") or {*head.outputs} == {"boxes", "scores", "labels"}
        run = HeadRunner(tmp_path / "head.onnx")
        for image in images.split(1):
            maps = encoder_maps(inside, image)
            there = {name: one.numpy() for name, one in zip(head.outputs, head(*maps.values()), strict=True)}
            (own,) = run({name: one.numpy() for name, one in maps.items()})
            assert not list(differences([remembered(own)], [remembered(there)]))
            assert len(own["scores"]) and np.isfinite(own["boxes"]).all()
