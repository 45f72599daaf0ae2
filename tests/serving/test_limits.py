from __future__ import annotations

from fimaq_deploy.serving.limits import Limits


def test_every_limit_is_finite() -> None:
    limits = Limits()
    assert 0 < limits.body_bytes < 2**32 and 0 < limits.seconds < 3600
    assert 0 < limits.running < 10_000 and 0 < limits.queued < 100_000 and 0 < limits.most_pixels < 10**9
