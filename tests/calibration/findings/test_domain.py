from __future__ import annotations

from fimaq_deploy.calibration.findings.domain import domain_warning, excess, with_evaluation
from fimaq_deploy.calibration.findings.usage import GridUse


def use(name: str, clipped: float, evaluated: float | None = None) -> GridUse:
    return GridUse(name, "activation", 8, 200, 256, clipped, evaluated)


def test_shares_are_put_beside_those_of_their_tensors_and_not_of_weights() -> None:
    grids = [GridUse("fc1", "weight", 8, 200, 256, 0.0), use("fc1", 0.1), use("fc2", 0.2)]
    assert [one.evaluated for one in with_evaluation(grids, {"fc1": 0.5})] == [None, 0.5, None]


def test_what_calibration_images_clip_too_is_no_other_domain() -> None:
    assert excess(use("fc1", 1.0, 1.9)) == 0 and excess(use("fc1", 1.0)) == 0
    assert domain_warning([use("fc1", 1.0, 2.2), use("fc2", 0.0, 0.4)]) is None


def test_the_worst_tensors_are_named_with_both_shares() -> None:
    told = domain_warning([use("fc1", 0.1, 3.0), use("fc2", 0.0, 9.0), use("fc3", 0.1, 0.1)])
    assert told is not None
    assert "in 2 of 3 tensors" in told and "fc2 9 % (calibration 0 %), fc1 3 % (calibration 0.1 %)" in told
