from __future__ import annotations

from fimaq_deploy.engines.runtimes import RUNTIMES
from fimaq_deploy.pipeline.inventory import look_around


def test_the_machine_and_every_target() -> None:
    found = look_around()
    assert [one.runtime.name for one in found.abilities] == list(RUNTIMES)
    assert all((one.not_built, one.not_run) == one.runtime.availability() for one in found.abilities)
    assert found.environment.cores >= 1
    assert found.document()["environment"]["cpu"] == found.environment.cpu
