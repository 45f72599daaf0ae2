"""Blocks are told by the names of nodes. What placements compile to: tests/export/test_tensorrt_twin.py."""

from __future__ import annotations

import pytest

from fimaq_deploy.verify.block_plan import stage_of


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("blocks.10.attn.qkv/MatMul", "blocks.10"),
        ("layers.1.blocks.0/Add", "layers.1.blocks.0"),
        ("layers.2.downsample.norm/LayerNormalization", "layers.2.downsample"),
        ("patch_embed.proj/Conv", "patch_embed"),
        ("fc_norm/LayerNormalization", "head"),
        ("norm/LayerNormalization", "head"),
        ("/layers/layers.0/blocks/blocks.1/attn/qkv/MatMul", "layers.0.blocks.1"),
        ("/blocks/blocks.3/mlp/fc1/MatMul", "blocks.3"),
        ("node_MatMul_12", None),
    ],
)
def test_stages_are_read_from_names(name: str, stage: str | None) -> None:
    assert stage_of(name) == stage
