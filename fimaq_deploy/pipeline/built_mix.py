"""A mix that a budget chose, beside what was built of it: the size of its file, and its products timed in it."""

from __future__ import annotations

from pathlib import Path

from fimaq_deploy.engines.runtimes import Runtime
from fimaq_deploy.graph.saving import size_of
from fimaq_deploy.measure.products import pieces_of, time_products
from fimaq_deploy.pipeline.costs import is_measured
from fimaq_deploy.report import schema


def with_built(mix: schema.Mix, file: Path, runtimes: list[Runtime]) -> schema.Mix:
    """The record with what model.onnx takes and, for each target that is timed here, how fast its layers' products are.

    Raises:
        UserError: the file is none of this package's.
    """
    pieces = [piece for piece in pieces_of(file) if piece.layer in mix.formats]
    times = []
    for runtime in filter(is_measured, runtimes if pieces else ()):
        speed, interval = time_products(pieces, runtime).speed()
        times.append(schema.MixTime(target=runtime.name, speed=speed, interval=interval))
    return mix.model_copy(update={"built": schema.MixBuilt(megabytes=size_of(file) / 1e6, times=times)})
