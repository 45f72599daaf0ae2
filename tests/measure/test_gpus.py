"""Cards by name, and that the table is one of cards."""

from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.gpus import GPUS, find_gpu
from fimaq_deploy.measure.roofline import FLOAT4, FLOAT8, FLOAT16, INT8, Work, floor_ms


@pytest.mark.parametrize("name", ["L4", "l4", "NVIDIA L4", "nvidia-l4"])
def test_a_card_is_found_however_it_is_written(name: str) -> None:
    assert find_gpu(name).name == "L4"
    assert find_gpu("NVIDIA GeForce RTX 4090").name == "RTX 4090" and find_gpu("Tesla T4").name == "T4"


def test_an_unknown_card_is_one_line_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"^--gpu RTX 4091: no rates are known of it; expected one like RTX 4090"):
        find_gpu("RTX 4091")
    for other in ("", "Voodoo", 3, None):
        with pytest.raises(UserError, match=r"^--gpu .*expected one like T4, A2"):
            find_gpu(other)


def test_rates_rise_as_types_get_shorter_and_types_come_with_generations() -> None:
    for gpu in GPUS.values():
        rates = gpu.rates.operations
        assert rates[INT8] >= 1.9 * rates[FLOAT16], gpu.name
        assert (FLOAT8 in rates) == (gpu.capability >= (8, 9)), gpu.name
        assert (FLOAT4 in rates) == (gpu.capability >= (10, 0)), gpu.name
        assert rates.get(FLOAT4, rates[INT8]) >= rates[INT8], gpu.name
        assert 1e11 < gpu.rates.bytes_moved < 1e13 < rates[FLOAT16] < 1e16, gpu.name


def test_a_type_that_a_card_lacks_has_no_rate() -> None:
    with pytest.raises(KeyError):
        floor_ms(Work({FLOAT8: 1}, 0, 0), find_gpu("T4").rates)
