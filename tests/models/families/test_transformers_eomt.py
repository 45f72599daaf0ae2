"""EoMT: the whole model is a chain to the tokens of its queries and patches, of which masks and classes are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of

hf = pytest.importorskip("transformers")
if not hasattr(hf, "EomtConfig"):
    pytest.skip("transformers without EoMT", allow_module_level=True)


def segmenter(**changes: Any) -> Any:
    size = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    asking = {"num_blocks": 2, "num_queries": 5, "num_upscale_blocks": 1, "num_labels": 3}
    model = hf.EomtForUniversalSegmentation(hf.EomtConfig(**{**size, **asking, **changes}))
    model.attn_mask_probs.zero_()
    return model


@pytest.mark.parametrize("changes", [{}, {"num_blocks": 4, "use_swiglu_ffn": True}])
def test_the_chain_in_its_place_changes_nothing(changes: Any, lively: Any, same_with_its_chain: Any) -> None:
    same_with_its_chain(lively(lambda: segmenter(**changes)), "", (3, 32, 32))


@pytest.mark.slow
def test_deployed_inside(lively: Any, deployed_inside: Any, tmp_path: Path) -> None:
    quantized = deployed_inside(lively(segmenter), (3, 32, 32), tmp_path)
    assert not quantized.left_alone


def test_masks_of_its_training_are_refused(lively: Any) -> None:
    model = lively(segmenter)
    model.attn_mask_probs[1] = 0.5
    with pytest.raises(UserError, match=r"^the model hides patches from queries .* \(attn_mask_probs\)"):
        family_of(model).check(model)
