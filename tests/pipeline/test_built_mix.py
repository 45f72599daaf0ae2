"""What was built of a mix is looked up in its file."""

from __future__ import annotations

from pathlib import Path

from fimaq_deploy.engines.runtimes import find_runtime
from fimaq_deploy.pipeline.built_mix import with_built
from fimaq_deploy.report.schema import Mix, MixPoint


def test_size_and_products_are_the_files_own(layers_file: Path) -> None:
    point = MixPoint(megabytes=1.0, speed=2.0, loss=0.0)
    runtimes = [find_runtime("onnxruntime-cpu"), find_runtime("tensorrt-rtx")]
    mix = Mix(formats={"fc1": "w8a8", "fc2": "floats"}, losses={}, chosen=point, front=[point])
    built = with_built(mix, layers_file, runtimes).built
    assert built is not None and 1e6 * built.megabytes == layers_file.stat().st_size
    (time,) = built.times
    assert time.target == "onnxruntime-cpu" and time.interval[0] <= time.speed <= time.interval[1]
    alone = with_built(mix.model_copy(update={"formats": {"fc2": "floats"}}), layers_file, runtimes).built
    assert alone is not None and alone.times[0].speed == 1.0, "what is in floats is as fast as in floats"
    none = with_built(mix.model_copy(update={"formats": {"other": "w8a8"}}), layers_file, runtimes).built
    assert none is not None and none.times == []
