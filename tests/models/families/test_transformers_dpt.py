"""DPT's own ViT: the tokens that it hands out are the same inside of a segmenter and of a depth model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families import family_of
from fimaq_deploy.models.inside import find_backbone

hf = pytest.importorskip("transformers")


def config(**changes: Any) -> Any:
    size = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}
    rest = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "num_labels": 3, "intermediate_size": 64}
    return hf.DPTConfig(**{**size, **rest, "backbone_out_indices": [0, 1, 2, 4], **changes})


@pytest.mark.parametrize(
    ("kind", "changes", "side"),
    [
        ("DPTForSemanticSegmentation", {}, 32),
        ("DPTForSemanticSegmentation", {"readout_type": "add", "qkv_bias": False}, 48),  # positions that are resampled
        ("DPTForDepthEstimation", {"head_in_index": 1}, 32),
    ],
)
def test_the_chain_in_its_place_changes_nothing(
    kind: str, changes: Any, side: int, lively: Any, same_with_its_chain: Any
) -> None:
    model = lively(lambda: getattr(hf, kind)(config(**changes)))
    same_with_its_chain(model, "dpt", (3, side, side))


@pytest.mark.slow
def test_deployed_inside(lively: Any, deployed_inside: Any, tmp_path: Path) -> None:
    deployed_inside(lively(lambda: hf.DPTForSemanticSegmentation(config())), (3, 32, 32), tmp_path)


def test_only_what_the_rest_reads_is_there(lively: Any) -> None:
    model = lively(lambda: hf.DPTForSemanticSegmentation(config()))
    encoder, family = model.dpt, family_of(model.dpt)
    reply = family.reply(encoder, list("abcd"))
    assert reply.hidden_states == (None, "a", "b", "c", None, "d")


def test_what_is_not_understood_is_refused(lively: Any) -> None:
    body = hf.BitConfig(hidden_sizes=[8, 8, 8], depths=[1, 1, 1], embedding_size=8, num_groups=2,
                        out_features=["stage1", "stage2", "stage3"])  # fmt: skip
    mixed = {"is_hybrid": True, "backbone_config": body, "backbone_featmap_shape": [1, 8, 4, 4]}
    last = {"readout_type": "project", "neck_ignore_stages": [0, 1]}
    model = lively(lambda: hf.DPTForSemanticSegmentation(config(**mixed, **last)))
    told = r"^the model is a DPTFor.* by 'dpt.embeddings.backbone(.bit)?', a Bit\w+: a convolutional network"
    with pytest.raises(UserError, match=told):
        find_backbone(model)
    other = lively(lambda: hf.DPTForSemanticSegmentation(config()))
    other.dpt.encoder.layer[1] = nn.Identity()
    with pytest.raises(UserError, match=r"^module 'encoder.layer.1' is a Identity"):
        family_of(other.dpt).check(other.dpt)
