"""How many images are computed at once, so that memory does not grow with the square of the tokens.

Attention spelled out keeps heads · tokens² numbers an image, several times while it learns. Everything else grows with
the tokens alone. The bounds are constants and not what is free now: the same call computes the same numbers anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fimaq_deploy.calibration.device import is_host
from fimaq_deploy.calibration.network.attentions import attentions_of

HOST_BYTES = 2**31
DEVICE_BYTES = 2**34
# Scores, bias, softmax, its integers and what their gradients keep, in float32.
_LIVE_BYTES = 8 * 4


def images_at_once(model: nn.Module, tokens: Mapping[str, int]) -> int:
    """As many images as fit the bound where attention is largest, at least one.

    tokens: the sequence length of each attention, by name. Windows are counted as if an image had one, which makes the
    attention of windows small, as it is.
    """
    bound = HOST_BYTES if is_host(next(model.parameters()).device) else DEVICE_BYTES
    numbers = (heads.count * tokens[name] ** 2 for name, heads in attentions_of(model).items())
    return max(1, bound // (_LIVE_BYTES * max(numbers, default=1)))
