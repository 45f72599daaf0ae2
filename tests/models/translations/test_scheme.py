from __future__ import annotations

import torch

from fimaq_deploy.models.translations.scheme import Scheme

SCHEME = Scheme(
    "theirs",
    "stem.weight",
    (
        (r"stem\.(weight)", r"patch.\1"),
        (r"block(\d)\.(q|k|v)\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
        (r"index", None),
    ),
    head=((r"fc\.(weight)", r"head.\1"),),
)


def test_prefixes_are_what_stands_before_the_anchor() -> None:
    named = {"stem.weight": 1, "a.stem.weight": 1, "a.b.stem.weight": 1, "a.xstem.weight": 1}
    assert SCHEME.prefixes(named) == ["", "a.", "a.b."]  # type: ignore[arg-type]


def test_rules_rename_drop_and_leave_alone() -> None:
    named = {"net.body.stem.weight": torch.ones(1), "net.body.index": torch.ones(1), "net.body.other": torch.ones(1)}
    found = SCHEME.translate({**named, "net.fc.weight": torch.ones(2), "fc.weight": torch.ones(3)}, "net.body.")
    assert set(found) == {"patch.weight", "other", "head.weight"}
    assert len(found["head.weight"]) == 2


def test_projections_are_fused_in_their_order_and_a_missing_bias_is_zero() -> None:
    parts = {f"block0.{part}.weight": torch.full((1, 2), float(index)) for index, part in enumerate("kvq")}
    biases = {"block0.q.bias": torch.ones(1), "block0.v.bias": torch.full((1,), 3.0)}
    found = SCHEME.translate({**parts, **biases}, "")
    assert found["blocks.0.attn.qkv.weight"][:, 0].tolist() == [2.0, 0.0, 1.0]
    assert found["blocks.0.attn.qkv.bias"].tolist() == [1.0, 0.0, 3.0]
    assert set(found) == {"blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias"}
