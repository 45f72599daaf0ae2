"""On a GPU, a GELU and the fake quantizer behind it in one kernel, while a block learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timm.layers.mlp import Mlp
from torch import Tensor, nn

from fimaq_deploy.calibration.device import of, place_of
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer
from fimaq_deploy.calibration.quantizers.layers import QuantizedLinear
from fimaq_deploy.models.families import parts

# Those that compute fc2(norm(act(fc1(x)))).
_KINDS = (Mlp, parts.Mlp)


class _HandedOn(nn.Module):
    """A GELU that leaves its work to the quantizer behind it wherever that can do it too."""

    def __init__(self, act: nn.Module, behind: ActivationQuantizer) -> None:
        super().__init__()
        self.act = act
        self._behind = (behind,)  # whose name in the model is another

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x if self._behind[0].fuses(x) else self.act(x)
        return found


@contextmanager
def gelus_handed_on(module: nn.Module) -> Iterator[None]:
    """Inside, each GELU below a module that goes to one quantized layer alone is computed by that layer's quantizer."""
    found: list[Any] = [mlp for mlp in module.modules() if _is_known(mlp)] if of(place_of(module)).fuses else []
    acts = [mlp.act for mlp in found]
    for mlp in found:
        behind = mlp.fc2.input_quantizer
        mlp.act, behind.behind_gelu = _HandedOn(mlp.act, behind), True
    try:
        yield
    finally:
        for mlp, act in zip(found, acts, strict=True):
            mlp.act, mlp.fc2.input_quantizer.behind_gelu = act, False


def _is_known(mlp: Any) -> bool:
    return (
        type(mlp) in _KINDS
        and type(mlp.act) is nn.GELU
        and mlp.act.approximate == "none"
        and type(mlp.norm) is nn.Identity
        and isinstance(mlp.fc2, QuantizedLinear)
    )
