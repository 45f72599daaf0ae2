"""Each kind of grid gets its quantizers, and a search what it asks."""

from __future__ import annotations

import pytest
import torch

from fimaq_deploy.calibration.quantizers.block_floats import BlockActivationQuantizer, BlockWeightQuantizer, storable
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer, WeightQuantizer, short_scale
from fimaq_deploy.calibration.quantizers.float_quant import FloatActivationQuantizer, FloatWeightQuantizer
from fimaq_deploy.calibration.quantizers.grid import (
    ActivationGrid,
    AnyWeightGrid,
    FloatActivationGrid,
    FloatWeightGrid,
    WeightGrid,
)
from fimaq_deploy.calibration.quantizers.of_grid import (
    activation_quantizer,
    on_grid,
    shrunken,
    storable_scale,
    weight_quantizer,
    widest_scale,
)

GRIDS: dict[str, AnyWeightGrid] = {
    "int": WeightGrid(4),
    "fp8": FloatWeightGrid("fp8"),
    "nvfp4": FloatWeightGrid("fp4", 16),
}


def test_a_grid_has_quantizers_of_its_kind() -> None:
    weights = [type(weight_quantizer(grid, 4, 32)) for grid in GRIDS.values()]
    assert weights == [WeightQuantizer, FloatWeightQuantizer, BlockWeightQuantizer]
    inputs = [
        ActivationGrid(8, "symmetric"),
        FloatActivationGrid("fp8"),
        FloatActivationGrid("fp4", block_size=16),
        None,
    ]
    found = [type(activation_quantizer(grid)) for grid in inputs]
    assert found == [ActivationQuantizer, FloatActivationQuantizer, BlockActivationQuantizer, ActivationQuantizer]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_widest_scale_covers_what_it_is_made_for(grid: AnyWeightGrid) -> None:
    values = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    scale = widest_scale(grid, values.amin(1), values.amax(1))[:, None]
    steps = values / scale
    low, high = grid.bounds
    assert (steps >= low - 1e-4).all() and (steps <= high + 1e-4).all()
    assert (on_grid(grid, steps.clone()) - steps).abs().max() <= max(1, high / 8)
    assert shrunken(grid, 8, values.device)[0] == 1 and len(shrunken(grid, 8, values.device)) == 8


def test_scales_are_stored_as_their_grid_has_them() -> None:
    scales = torch.rand(20, generator=torch.Generator().manual_seed(1)) + 0.01
    for name in ("int", "fp8"):
        digits = GRIDS[name].scale_digits
        assert torch.equal(storable_scale(GRIDS[name], scales), short_scale(scales, digits, up=True))
    assert torch.equal(storable_scale(GRIDS["nvfp4"], scales), storable(scales))
