"""How chains end, against sums written out, and against timm's pooling."""

from __future__ import annotations

import pytest
import torch
from timm.layers import global_pool_nlc
from torch import Tensor, nn

from fimaq_deploy.models.families.head import (
    ATTENTION_POOL,
    FirstAndMean,
    FirstToken,
    Head,
    Kept,
    Largest,
    MapMean,
    Mean,
    pool,
)

PREFIX = 2


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["token", "avg", "max", "avgmax", ""])
def test_timms_words_mean_what_they_mean_to_timm(kind: str, tokens: Tensor) -> None:
    expected = global_pool_nlc(tokens, pool_type=kind, num_prefix_tokens=PREFIX)
    torch.testing.assert_close(pool(kind, PREFIX)(tokens), expected)


def test_a_first_token_and_the_mean_of_the_patches_stand_side_by_side(tokens: Tensor) -> None:
    got = FirstAndMean(PREFIX)(tokens)
    torch.testing.assert_close(got, torch.cat((tokens[:, 0], tokens[:, 2:].sum(1) / 5), 1))


def test_the_mean_of_a_map_is_over_rows_and_columns() -> None:
    maps = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(MapMean()(maps), Mean()(maps.flatten(1, 2)))


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (Mean(1), True),
        (MapMean(), True),
        (Largest(1, with_mean=True), True),
        (Largest(1), False),
        (FirstToken(), False),
        (FirstAndMean(1), False),
        (None, False),
    ],
)
def test_whether_the_head_reads_a_mean(pooling: nn.Module | None, expected: bool) -> None:
    assert Head(pool=pooling).reads_a_mean is expected


def test_features_stop_before_the_classifier(tokens: Tensor) -> None:
    norm, neck, classifier = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(neck.weight)
    head = Head(norm, FirstToken(), neck, classifier)
    assert torch.equal(head.features(tokens), neck(norm(tokens)[:, 0]))
    assert torch.equal(head(tokens), classifier(head.features(tokens)))


def test_a_head_of_nothing_hands_on_what_comes(tokens: Tensor) -> None:
    assert torch.equal(Head()(tokens), tokens)


def test_what_is_kept_computes_what_it_did_and_says_why(tokens: Tensor) -> None:
    part = nn.Linear(4, 2)
    assert torch.equal(Kept(part, "it is small")(tokens), part(tokens))
    assert Kept(part, "it is small").reason == "it is small" and Kept(part).reason == ATTENTION_POOL
