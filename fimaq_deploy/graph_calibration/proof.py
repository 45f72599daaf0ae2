"""Whether a clean graph computes what the file computes, shown on images before anything is learned."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.errors import UserError
from fimaq_deploy.graph.saving import write_model
from fimaq_deploy.graph_calibration.given import Array, Given
from fimaq_deploy.graph_calibration.intake import Network

_LIMIT, _HALF_LIMIT = 1e-3, 3e-2  # of a difference, over the output's largest value


def require_same(network: Network, given: Given, images: Array) -> float:
    """Compare the two on a few images, and return the largest difference over the output's largest value.

    Raises:
        UserError: they differ, or the file returns what is not finite.
    """
    wanted = given(images)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clean.onnx"
        write_model(network.model, path)
        session = open_session(path)
        names = [output.name for output in session.get_outputs()]
        try:
            found = dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))
        except Exception as error:  # the runtime's exceptions share no base class
            raise UserError(_differs(network, f"it does not run ({' '.join(str(error).split())[:160]})")) from None
    worst = 0.0
    for name, array in wanted.items():
        if not np.isfinite(array).all():
            raise UserError(f"{network.path} answers NaN or infinity as {name}: check its weights and the images")
        if found[name].shape != array.shape:
            raise UserError(_differs(network, f"{name} has shape {found[name].shape}, not {array.shape}"))
        worst = max(worst, float(np.abs(found[name] - array).max() / max(float(np.abs(array).max()), 1e-12)))
    limit = _LIMIT if network.dtype is ir.DataType.FLOAT and not network.halves else _HALF_LIMIT
    if not worst <= limit:
        raise UserError(_differs(network, f"outputs differ by {worst:.2g} of the largest"))
    return worst


def _differs(network: Network, what: str) -> str:
    batch = f", which takes batches of {network.batch} alone: export it with a free batch" if network.batch else ""
    return f"{network.path}{batch or ' cannot be rewritten for quantization: export it another way'} ({what})"
