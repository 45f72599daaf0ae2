"""Hugging Face's DeiT with a teacher: both heads are one."""

from __future__ import annotations

from typing import Any

import pytest

hf = pytest.importorskip("transformers")
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
IMAGES = {"image_size": 32, "patch_size": 8, "num_labels": 20}


def test_the_chain_answers_what_the_model_does(lively: Any, equals_its_chain: Any) -> None:
    chain = equals_its_chain(lively(lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**SIZE, **IMAGES))))
    assert chain.num_classes == 20
    assert chain.head.classifier.in_features == 128
