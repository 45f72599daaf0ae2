from __future__ import annotations

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.packaging.triton_config import Backend, Step, Tensor, ensemble, model

IMAGES = Tensor("images", "float32", (3, None, 8))


def test_what_is_free_is_minus_one_and_a_scalar_has_one_side() -> None:
    assert "dims: [ 3, -1, 8 ]" in IMAGES.text()
    assert "dims: [ 1 ]" in Tensor("score", "float32", ()).text()
    with pytest.raises(UserError, match="which Triton has no type for"):
        Tensor("z", "complex64", (1,)).text()


def test_without_a_batch_nothing_is_batched() -> None:
    backend = Backend("openvino", "KIND_CPU", "model.onnx", "model.onnx", batches=False)
    text = model("x", backend, [IMAGES], [IMAGES], None)
    assert "max_batch_size: 0" in text and "dynamic_batching" not in text
    assert "max_batch_size: 8" in (text := model("x", backend, [IMAGES], [IMAGES], 8)) and "dynamic_batching" in text


def test_an_ensemble_names_its_models_in_their_order() -> None:
    steps = [Step("first", {"images": "images"}, {"map": "map"}), Step("second", {"map": "map"}, {"boxes": "boxes"})]
    text = ensemble("x", [IMAGES], [Tensor("boxes", "float32", (None, 4))], steps)
    assert text.index('"first"') < text.index('"second"') and 'platform: "ensemble"' in text
