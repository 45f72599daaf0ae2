"""What reads the images of a model without an encoder that we know: named, and told from transformers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from fixtures.detectors import segmenter
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import require_supported
from fimaq_deploy.models.inside import find_backbone
from fimaq_deploy.models.readers import reader_of


def on_meta(make: Any) -> nn.Module:
    """Shapes alone: nothing is computed here."""
    with torch.device("meta"):
        return make()


def fpn() -> Any:
    from torchvision.models.detection import retinanet_resnet50_fpn

    return retinanet_resnet50_fpn(weights=None, weights_backbone=None)


def ssd() -> Any:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)


CONVOLUTIONAL = {
    "resnet18": (lambda: timm.create_model("resnet18"), "", "ResNet"),
    "convnext_atto": (lambda: timm.create_model("convnext_atto"), "", "ConvNeXt"),
    "features_only": (lambda: timm.create_model("resnet18", features_only=True), "", "FeatureListNet"),
    "retinanet": (fpn, "backbone.body", "IntermediateLayerGetter"),
    "ssdlite": (ssd, "backbone", "SSDLiteFeatureExtractorMobileNet"),
}


@pytest.mark.parametrize(("make", "place", "kind"), CONVOLUTIONAL.values(), ids=CONVOLUTIONAL.keys())
def test_convolutional_networks_are_named(make: Any, place: str, kind: str) -> None:
    model = on_meta(make)
    found = reader_of(model)
    assert found is not None
    assert (found.name, type(found.module).__name__, found.mixed) == (place, kind, False)
    told = f"is a {type(model).__name__}{f', whose images are read by .{place}., a {kind}' if place else ''}: a convol"
    with pytest.raises(UserError, match=f"^the model {told}") as raised:
        find_backbone(model)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=f"^mine:model {told}"):
        require_supported(model, "mine:model")


@pytest.mark.slow
def test_detectors_on_them_are_told_and_their_decoders_left() -> None:
    """Attention of queries is no encoder, whatever reads the images."""
    hf = pytest.importorskip("transformers")
    narrow = dict.fromkeys(("encoder_hidden_dim", "encoder_ffn_dim", "d_model", "decoder_ffn_dim"), 16)
    few = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_layers": 1, "num_queries": 4}
    resnet = on_meta(lambda: hf.RTDetrForObjectDetection(hf.RTDetrConfig(**narrow, **few)))
    hgnet = on_meta(lambda: hf.DFineForObjectDetection(hf.DFineConfig(decoder_layers=2)))
    for model, kind in ((resnet, "RTDetrResNetBackbone"), (hgnet, "HGNetV2Backbone")):
        with pytest.raises(UserError, match=f"read by 'model.backbone.model', a {kind}: a convolutional network"):
            find_backbone(model)


HYBRID = {
    "levit_128s": (lambda: timm.create_model("levit_128s"), "", "LevitDistilled"),
    "mobilevit_xxs": (lambda: timm.create_model("mobilevit_xxs"), "", "ByobNet"),
    "pvt_v2_b0": (lambda: timm.create_model("pvt_v2_b0"), "", "PyramidVisionTransformerV2"),
}


@pytest.mark.parametrize(("make", "place", "kind"), HYBRID.values(), ids=HYBRID.keys())
def test_hybrids_are_told(make: Any, place: str, kind: str) -> None:
    found = reader_of(on_meta(make))
    assert found is not None
    assert (found.name, type(found.module).__name__, found.mixed) == (place, kind, True)


def test_segformer_is_a_hybrid_by_its_place() -> None:
    hf = pytest.importorskip("transformers")
    size = {"hidden_sizes": [16] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 16}
    model = on_meta(lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**size)))
    with pytest.raises(UserError, match="read by 'segformer', a SegformerModel: a hybrid of convolutions and"):
        find_backbone(model)


def test_transformers_and_what_has_no_images_are_neither() -> None:
    assert reader_of(segmenter()) is None
    assert reader_of(on_meta(lambda: timm.create_model("mixer_s32_224"))) is None
    assert reader_of(nn.Sequential(nn.Linear(2, 2))) is None
    assert reader_of("model") is None
