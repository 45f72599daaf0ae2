"""Hugging Face's plain transformers: ViT, DeiT, ViT-MSN, I-JEPA, DINOv2 and DINOv3, CLIP's and SigLIP's towers.

They differ in names and in their ends. What is deployed of a model with several outputs is the logits, else the image
embedding, else the pooled output, else all tokens; of ViT, DeiT and I-JEPA all tokens, as poolers are untrained.
Modules have the names of `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.families.chain import Shape
from fimaq_deploy.models.families.head import FirstAndMean, FirstToken, Head, Kept, Mean
from fimaq_deploy.models.families.parts import Attention, Block, GatedMlp, Mlp, Rotary, joined, tokens
from fimaq_deploy.models.families.source import TransformersSource

_WITH_CLASSES = "ForImageClassification"
_UNPOOLED = ("ViTModel", "DeiTModel", "ViTMSNModel", "IJepaModel")
_POOLED = ("Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel", "CLIPVisionModel", "SiglipVisionModel")
_CLASSIFIERS = ("ViT", "DeiT", "ViTMSN", "IJepa", "Dinov2", "Dinov2WithRegisters", "CLIP", "Siglip")
_KINDS = (*_UNPOOLED, *_POOLED, "CLIPVisionModelWithProjection", *(f"{one}{_WITH_CLASSES}" for one in _CLASSIFIERS))


class TransformersVit(TransformersSource):
    name = "transformers-vit"
    kinds = tuple(f"transformers {kind}" for kind in _KINDS)
    class_names = _KINDS

    def classes(self, model: Any) -> int:
        return model.config.num_labels if _has_classes(model) else 0

    def check(self, model: Any, what: str = "the model") -> None:
        check_blocks(model)

    def answer(self, model: Any) -> str:
        if _has_classes(model):
            return "logits"
        if hasattr(model, "visual_projection"):
            return "image_embeds"
        unpooled = type(model).__name__ in _UNPOOLED or not getattr(model, "use_head", True)
        return "last_hidden_state" if unpooled else "pooler_output"

    def links(self, model: Any, shape: Shape) -> Mapping[str, nn.Module]:
        tower = _tower(model)
        proj = next(one for one in tower.embeddings.modules() if isinstance(one, nn.Conv2d))
        positions = any("position" in name for name, _ in tower.embeddings.named_parameters())
        norm = getattr(tower, "pre_layrnorm", None)
        first = tokens(proj, tower.embeddings, shape, positions=positions, norm=norm)
        prefix = 0 if first.prefix is None else first.prefix.shape[1]
        blocks = chain_blocks(model, lambda: _rotary(tower, shape, prefix))
        return {"patch_embed": first, **blocks, "head": _head(model, tower, prefix, self.answer(model))}


def check_blocks(model: Any) -> None:
    """Refuse blocks without the parts of a plain transformer's.

    Raises:
        UserError: names the block and what it lacks.
    """
    for name, layer in _layers(model):
        for leaf in ("q_proj", "norm1", "fc2"):
            _part(name, layer, leaf)


def chain_blocks(model: Any, rotary: Callable[[], Rotary | None] = lambda: None) -> dict[str, nn.Module]:
    """The blocks of a plain transformer; each has positions of its own."""
    return {f"blocks.{number}": _block(*layer, rotary()) for number, layer in enumerate(_layers(model))}


def _has_classes(model: Any) -> bool:
    return type(model).__name__.endswith(_WITH_CLASSES)


def _tower(model: Any) -> Any:
    return next(one for one in (model, *model.children()) if hasattr(one, "embeddings"))


def _layers(model: Any) -> list[tuple[str, Any]]:
    """The blocks with their names in the model."""
    found = next(name for name, one in model.named_modules() if isinstance(one, nn.ModuleList))
    return [(f"{found}.{number}", layer) for number, layer in enumerate(model.get_submodule(found))]


_NAMES = {
    "norm1": ("norm1", "layernorm_before", "layer_norm1"),
    "norm2": ("norm2", "layernorm_after", "layer_norm2"),
    "o_proj": ("o_proj", "out_proj"),
    "fc1": ("fc1", "up_proj"),
    "fc2": ("fc2", "down_proj"),
    "act": ("activation_fn", "act_fn"),
}


def _part(name: str, layer: nn.Module, leaf: str) -> Any:
    """A part of a block by the last word of its name.

    Raises:
        UserError: there is none.
    """
    wanted = _NAMES.get(leaf, (leaf,))
    found = (one for path, one in layer.named_modules() if path.split(".")[-1] in wanted)
    part = next(found, None)
    if part is None:
        raise UserError(f"module '{name}' is a {type(layer).__name__} without {wanted[0]}: expected transformers 5")
    return part


def _block(name: str, layer: Any, rotary: Rotary | None) -> Block:
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "norm1", "norm2")
    q, k, v, out, norm1, norm2 = (_part(name, layer, leaf) for leaf in names)
    own = getattr(layer, "attention", None) or layer.self_attn
    heads = getattr(own, "num_attention_heads", None) or own.num_heads
    scales = tuple(getattr(getattr(layer, f"layer_scale{one}", None), "lambda1", None) for one in (1, 2))
    attention = Attention(joined(q, k, v), out, heads, rotary=rotary)
    return Block(norm1, attention, norm2, _mlp(name, layer), scales=(scales[0], scales[1]))


def _mlp(name: str, layer: Any) -> Mlp | GatedMlp:
    fc1, act, fc2 = (_part(name, layer, leaf) for leaf in ("fc1", "act", "fc2"))
    gate = getattr(layer.mlp, "gate_proj", None)
    return Mlp(fc1, act, fc2) if gate is None else GatedMlp(gate, fc1, act, fc2)


def _rotary(tower: Any, shape: Shape, prefix: int) -> Rotary | None:
    if not hasattr(tower, "rope_embeddings"):
        return None
    cos, sin = tower.rope_embeddings(next(tower.parameters()).new_zeros(1, *shape))
    return Rotary(sin, cos, prefix)


def _head(model: Any, tower: Any, prefix: int, answer: str) -> Head:
    """The last norm, what makes one vector of the tokens, and the classifier or projection."""
    classifier = getattr(model, "classifier", None) or getattr(model, "visual_projection", None)
    last = next(getattr(tower, name) for name in ("layernorm", "norm", "post_layernorm") if hasattr(tower, name))
    kind = type(model).__name__
    if kind.startswith("CLIP"):  # it norms the first token alone, and no token for classes
        by_classes = Head(pool=Mean(1), classifier=classifier)
        return by_classes if answer == "logits" else Head(None, FirstToken(), last, classifier)
    if kind.startswith("Siglip") and answer == "pooler_output":
        return Head(last, Kept(tower.head))
    if answer == "logits" and kind.startswith(("Siglip", "IJepa", "Dinov2")):
        return Head(last, FirstAndMean(prefix) if kind.startswith("Dinov2") else Mean(), classifier=classifier)
    return Head(last, None if answer == "last_hidden_state" else FirstToken(), classifier=classifier)


FAMILY = TransformersVit()
