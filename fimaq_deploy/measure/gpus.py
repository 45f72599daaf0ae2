"""What GPUs can do at best, by name: rates of their tensor cores and of their memory, from NVIDIA's data sheets.

Dense rates, without structured sparsity; floats with sums in float32, which GeForce cards add at half the rate of their
integers. From the data sheets of each card and the architecture papers of Ampere GA102, Ada and Blackwell.

No card reaches them on the products of a transformer: they are for a comparison of formats on one card.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.measure.roofline import FLOAT4, FLOAT8, FLOAT16, INT8, Rates
from fimaq_deploy.target import ComputeCapability

_NEAREST = 3


@dataclass(frozen=True)
class Gpu:
    """A card. rates: of the types that its tensor cores multiply."""

    name: str
    capability: ComputeCapability
    rates: Rates


def _gpu(
    name: str,
    capability: ComputeCapability,
    gigabytes: float,
    float16: float,
    int8: float,
    float8: float | None = None,
    float4: float | None = None,
) -> Gpu:
    """Bandwidth in GB/s, rates in tera-operations a second."""
    rates = {FLOAT16: float16, INT8: int8, FLOAT8: float8, FLOAT4: float4}
    known = {kind: 1e12 * rate for kind, rate in rates.items() if rate is not None}
    return Gpu(name, capability, Rates(known, 1e9 * gigabytes))


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("T4", (7, 5), 320, 65, 130),
        _gpu("A2", (8, 6), 200, 18, 36),
        _gpu("A10", (8, 6), 600, 125, 250),
        _gpu("A30", (8, 0), 933, 165, 330),
        _gpu("A40", (8, 6), 696, 149.7, 299.3),
        _gpu("A100", (8, 0), 1555, 312, 624),
        _gpu("A100 80GB", (8, 0), 2039, 312, 624),
        _gpu("RTX 3090", (8, 6), 936, 71, 284),
        _gpu("L4", (8, 9), 300, 121, 242, 242),
        _gpu("L40", (8, 9), 864, 181, 362, 362),
        _gpu("L40S", (8, 9), 864, 362, 733, 733),
        _gpu("RTX 4090", (8, 9), 1008, 165.2, 660.6, 330.3),
        _gpu("H100 PCIe", (9, 0), 2000, 756, 1513, 1513),
        _gpu("H100 SXM", (9, 0), 3350, 989, 1979, 1979),
        _gpu("H200", (9, 0), 4800, 989, 1979, 1979),
        _gpu("B200", (10, 0), 8000, 2250, 4500, 4500, 9000),
        _gpu("RTX 5090", (12, 0), 1792, 209.5, 838, 419, 1676),
    )
}


def find_gpu(name: object) -> Gpu:
    """A card by its name, with or without its maker's.

    Raises:
        UserError: it is not in the table; the message has the nearest names.
    """
    names = {_plain(known): known for known in GPUS}
    plain = _plain(name) if isinstance(name, str) else ""
    if plain in names:
        return GPUS[names[plain]]
    close = [names[each] for each in get_close_matches(plain, names, _NEAREST, 0.5)]
    raise UserError(f"--gpu {shown(name)}: no rates are known of it; expected one like {', '.join(close or GPUS)}")


def _plain(name: str) -> str:
    words = name.lower().replace("-", " ").replace("_", " ").split()
    return "".join(word for word in words if word not in ("nvidia", "geforce", "tesla"))
