"""Passes of a whole set through a block: the numbers of its minibatches, however many of them go together."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from fimaq_deploy.calibration.budget import images_in_a_pass
from fimaq_deploy.calibration.device import is_host, place_of
from fimaq_deploy.calibration.learning.batches import relative_error, run_batches


def minibatch_outputs(module: nn.Module, inputs: Tensor, batch_size: int, at_once: int) -> Iterator[Tensor]:
    """The module's output for each minibatch of a set. at_once: images that attention allows."""
    size = min(batch_size, at_once)
    together = images_in_a_pass(inputs, place_of(module), batch_size, at_once) if is_host(place_of(module)) else size
    for outputs in run_batches(module, inputs, together):
        yield from outputs.split(size)


def error_of_passes(module: nn.Module, inputs: Tensor, z: Tensor, batch_size: int, at_once: int) -> Tensor:
    """`relative_error` of the module's outputs; on the host squares are added up minibatch by minibatch."""
    if is_host(place_of(module)):
        return relative_error(minibatch_outputs(module, inputs, batch_size, at_once), z)
    return relative_error(
        run_batches(module, inputs, images_in_a_pass(inputs, place_of(module), batch_size, at_once)), z
    )
