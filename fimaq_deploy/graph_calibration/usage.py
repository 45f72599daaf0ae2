"""How the tensors of a quantized graph fill their grids, on calibration images and on others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fimaq_deploy.calibration.findings.usage import GridUse, Tally
from fimaq_deploy.calibration.quantizers.grid import WeightGrid
from fimaq_deploy.graph_calibration.parts import Layer
from fimaq_deploy.graph_calibration.placement import Integers, Scale, Site
from fimaq_deploy.graph_calibration.quantization import QuantizedGraph
from fimaq_deploy.graph_calibration.segments import Array, Running, over


def grid_use(made: QuantizedGraph, batches: Sequence[Array]) -> list[GridUse]:
    """Of every quantized tensor. batches: images (N, C, H, W)."""
    weights = [_weight_use(layer, integers, grid) for layer, integers, grid in made.weights]
    return [*weights, *(_use(site, tally) for site, tally in _tallied(made, batches).items())]


def clipped_shares(made: QuantizedGraph, batches: Sequence[Array]) -> dict[str, float]:
    """Percent of the values beyond the grid, of every activation, by the tensor's name."""
    return {use.name: use.clipped for use in (_use(site, tally) for site, tally in _tallied(made, batches).items())}


def _tallied(made: QuantizedGraph, batches: Sequence[Array]) -> dict[Site, Tally]:
    """Counts of what reaches each quantizer of the quantized graph."""
    scales = made.found.sites
    tallies = {site: Tally(scale.span, torch.device("cpu")) for site, scale in scales.items()}
    names = list(dict.fromkeys(site.value for site in scales))
    if not names:
        return tallies
    with Running(made.original) as running:
        run = running.piece("images", names, made.found.into)
        for arrays in over(run, batches, batches):
            values = dict(zip(names, arrays, strict=True))
            for site, tally in tallies.items():
                tally.add(_steps(values[site.value], scales[site]))
    return tallies


def _steps(array: Array, scale: Scale) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)) / scale.scale + scale.span.zero_point


def _use(site: Site, tally: Tally) -> GridUse:
    name = site.name.removesuffix(".input_quantizer").replace(".quantizers.", ".")
    return tally.use(name, "activation", site.grid.bits, tally.counts.tolist())


def _weight_use(layer: Layer, integers: Integers, grid: WeightGrid) -> GridUse:
    tally = Tally(grid.range, torch.device("cpu"))
    scales = integers.scales.T if integers.block_size else integers.scales[:, None]
    wide = np.repeat(scales, integers.block_size, 1) if integers.block_size else scales
    tally.add(torch.from_numpy(layer.weight / wide))
    tally.stored(torch.from_numpy(integers.weights.astype(np.int64)))
    return tally.use(layer.name, "weight", grid.bits, tally.counts.tolist())
