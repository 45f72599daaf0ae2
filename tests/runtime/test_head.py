from __future__ import annotations

import numpy as np

from fimaq_deploy.runtime.head import differences, remembered

OBJECTS = {
    "boxes": np.array([[0, 0, 4, 4], [5, 5, 9, 9]], np.float32),
    "scores": np.array([0.9, 0.01], np.float32),
    "labels": np.array([1, 2]),
}


def test_unsure_objects_are_not_remembered() -> None:
    assert remembered(OBJECTS)["labels"].tolist() == [1]


def test_objects_differ_by_label_score_and_box() -> None:
    built = [remembered(OBJECTS)]
    assert not list(differences(built, built))
    for name, value in {"labels": 3, "scores": 0.8, "boxes": 2.0}.items():
        other = {key: one.copy() for key, one in built[0].items()}
        other[name][0] = value
        (line,) = differences([other], built)
        assert line.startswith("image 0: an object of label")


def test_other_answers_differ_by_more_than_rounding() -> None:
    built = [{"output": np.arange(10, dtype=np.float32)}]
    assert not list(differences([{"output": built[0]["output"] + 1e-5}], built))
    assert list(differences([{"output": built[0]["output"] + 1}], built))
    assert list(differences([{"output": built[0]["output"][:5]}], built)) == ["image 0: output has another shape"]
