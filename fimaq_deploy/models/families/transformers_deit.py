"""Hugging Face's DeiT with a teacher: two classifiers, on the class and the distillation token, whose mean is answered.

Both are one Linear of the two tokens side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.head import FirstTwo, Head
from fimaq_deploy.models.families.transformers_vit import TransformersVit


class TransformersDeit(TransformersVit):
    name = "transformers-deit"
    kinds = ("transformers DeiTForImageClassificationWithTeacher",)
    class_names = ("DeiTForImageClassificationWithTeacher",)

    def classes(self, model: Any) -> int:
        return model.config.num_labels

    def answer(self, model: Any) -> str:
        return "logits"

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        head = Head(model.deit.layernorm, FirstTwo(), None, _mean_of(model))
        return {**super().links(model, shape), "head": head}


@torch.no_grad()
def _mean_of(model: Any) -> nn.Linear:
    first, second = model.cls_classifier, model.distillation_classifier
    weight = torch.cat((first.weight, second.weight), 1) / 2
    made = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    made.weight.copy_(weight)
    made.bias.copy_((first.bias + second.bias) / 2)
    return made.requires_grad_(False)


FAMILY = TransformersDeit()
