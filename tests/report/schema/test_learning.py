from __future__ import annotations

import pytest
from pydantic import ValidationError

from fimaq_deploy import report as r
from fimaq_deploy.report.schema import Mix, MixPoint


def test_a_block_of_an_older_report_stopped_at_its_ceiling() -> None:
    block = r.Block(name="blocks.0", loss_before=0.2, loss_after=0.1, iterations=20, seconds=1.0)
    assert (block.stopped, block.curve) == ("ceiling", [])


def test_a_tensor_is_a_weight_or_an_activation() -> None:
    told = {"name": "x", "kind": "bias", "bits": 8, "used_levels": 1, "levels": 255, "clipped": 0.0}
    with pytest.raises(ValidationError, match="'weight' or 'activation'"):
        r.GridUse.model_validate(told)


def test_a_mix_reads_back_with_every_layer_in_its_place() -> None:
    point = MixPoint(megabytes=1.5, speed=1.8, loss=0.25)
    mix = Mix(formats={"b": "w4a8", "a": "floats"}, losses={"b": {"w4a8": 0.25}}, chosen=point, front=[point])
    found = Mix.model_validate_json(mix.model_dump_json())
    assert found == mix and list(found.formats) == ["b", "a"]
