from __future__ import annotations

import torch

from fimaq_deploy.engines.cuda import no_gpu


def test_the_driver_says_what_torch_sees() -> None:
    reason = no_gpu()
    if torch.cuda.is_available():
        assert reason is None
    assert reason is None or (reason.endswith("here") and "\n" not in reason)
    assert no_gpu() is reason, "it is asked once"
