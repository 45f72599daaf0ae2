"""Hugging Face's backbones: encoders that answer `feature_maps`, one for each stage in `out_features`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.models.families.maps import Maps
from fimaq_deploy.models.families.reply import Reply
from fimaq_deploy.models.families.source import TransformersSource


class FeatureMaps(TransformersSource, Maps):
    """Outputs are named after their stages. A model that was asked for a tuple has the maps first in it."""

    def outputs(self, model: Any) -> tuple[str, ...]:
        return tuple(stage for stage in model.stage_names if stage in model.out_features)

    def tensors(self, model: Any, answer: Any) -> Sequence[Tensor]:
        return list(answer["feature_maps"] if isinstance(answer, Mapping) else answer[0])

    def reply(self, model: nn.Module, tensors: Sequence[Tensor]) -> Any:
        return Reply(feature_maps=tuple(tensors))
