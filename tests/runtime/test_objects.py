from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.artifacts import INFO

from fimaq_deploy.contract import Contract, Head, read_contract
from fimaq_deploy.errors import UserError
from fimaq_deploy.runtime.objects import Detector, Segments
from fimaq_deploy.runtime.preprocessing import place


@pytest.mark.parametrize("mode", ["center", "border", "squash"])
def test_boxes_go_back_to_the_image(mode: str) -> None:
    contract = Contract((3, 20, 20), (0.5,) * 3, (0.5,) * 3, (20, 20), crop_mode=mode)
    where = place((40, 80), contract)
    box = np.array([[30.0, 10.0, 50.0, 30.0]])
    inside = box * np.array(where.scale * 2) + np.array(where.offset * 2)
    assert np.allclose(where.boxes(inside), box)
    assert where.boxes(np.array([[-900.0, -900.0, 900.0, 900.0]])).tolist() == [[0, 0, 80, 40]]


def test_a_plane_goes_back_to_the_image() -> None:
    contract = Contract((3, 20, 20), (0.5,) * 3, (0.5,) * 3, (20, 20), crop_mode="squash")
    half = np.zeros((20, 20), np.float32)
    half[:, 10:] = 1
    found = place((40, 80), contract).plane(half) > 0.5
    assert found.shape == (40, 80) and not found[:, :40].any() and found[:, 40:].all()


def test_shares_of_classes() -> None:
    assert Segments(np.array([[0, 1], [1, -1]], np.int16), ("sky",)).shares() == {"1": 0.5, "sky": 0.25}


def test_a_build_without_a_head_is_refused(artifact: Path) -> None:
    with pytest.raises(UserError, match="has no head"):
        Detector(artifact)


def test_a_head_stands_in_the_contract_and_leads_nowhere_else() -> None:
    part = replace(INFO.contract(["dense"]), part="body", head=Head("head.onnx", "detection", ("boxes",), ("a",)))
    document = part.document()
    assert read_contract(document, "").head == part.head
    document["part"]["head"]["file"] = "../head.onnx"
    with pytest.raises(UserError, match="cannot be read"):
        read_contract(document, "")
