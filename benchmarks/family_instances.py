"""A small instance of every family and source, by name: what `families.py` runs.

Widths are such that heads have 32 to 64 channels, as in models that people have; depth is two blocks, or two a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import transformers as hf
from timm.layers import RmsNorm, SwiGLUPacked
from timm.models import beit, deit, eva, naflexvit, swin_transformer, swin_transformer_v2, swin_transformer_v2_cr
from timm.models import vision_transformer as vit
from timm.models import vision_transformer_relpos as relpos
from torch import nn
from torchvision.models import swin_transformer as torchvision_swin
from torchvision.models import vision_transformer as torchvision_vit

_PLAIN: dict[str, Any] = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
_TIMM: dict[str, Any] = {**_PLAIN, "num_classes": 100}
_WINDOWS: dict[str, Any] = {"embed_dim": 64, "depths": (2, 2), "num_heads": (2, 4)}
_TIMM_WINDOWS: dict[str, Any] = {"img_size": 56, "patch_size": 4, "window_size": 7, "num_classes": 100, **_WINDOWS}
_HF: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "image_size": 64,
    "patch_size": 8,
}
_HF_WINDOWS: dict[str, Any] = {"image_size": 56, "patch_size": 4, "window_size": 7, "num_labels": 100, **_WINDOWS}
_TV_WINDOWS: dict[str, Any] = {"patch_size": [4, 4], "window_size": [7, 7], "num_classes": 100, **_WINDOWS}


def _hf(kind: str, config: str, *, pooled: bool = True, **settings: Any) -> nn.Module:
    made = getattr(hf, config)(**settings)
    return getattr(hf, kind)(made) if pooled else getattr(hf, kind)(made, add_pooling_layer=False)


def _eva(**changes: Any) -> nn.Module:
    return eva.Eva(**{**_TIMM, "use_rot_pos_emb": True, **changes})


def _naflex(**changes: Any) -> nn.Module:
    settings = {name: value for name, value in {**_PLAIN, **changes}.items() if name != "img_size"}
    made = naflexvit.NaFlexVitCfg(**settings, pos_embed_grid_size=None)
    return naflexvit.NaFlexVit(made, img_size=64, num_classes=100)


def _features(name: str, **settings: Any) -> nn.Module:
    settings.pop("num_classes", None)
    return timm.create_model(name, features_only=True, out_indices=(0, 1), **settings)


def _maps(kind: str, config: str, outputs: list[str], **settings: Any) -> nn.Module:
    return getattr(hf, kind)(getattr(hf, config)(out_features=outputs, **settings))


def _siglip2() -> nn.Module:
    settings = {name: value for name, value in _HF.items() if name != "image_size"}
    return hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**settings, num_patches=64))


def _rfdetr() -> nn.Module:
    from transformers.models.rf_detr.modeling_rf_detr import RfDetrDinov2Backbone

    windows = {"num_windows": 2, "window_block_indexes": [0], "out_features": ["stage1", "stage2"]}
    return RfDetrDinov2Backbone(hf.RfDetrDinov2Config(**{**_HF, **windows}))


def _maskformer() -> nn.Module:
    from transformers.models.maskformer.modeling_maskformer_swin import MaskFormerSwinBackbone

    return MaskFormerSwinBackbone(hf.MaskFormerSwinConfig(**{**_HF_WINDOWS, "out_features": ["stage1", "stage2"]}))


def _eomt() -> nn.Module:
    settings = {**_HF, "num_blocks": 1, "num_queries": 16, "num_labels": 20}
    made = hf.EomtForUniversalSegmentation(hf.EomtConfig(**settings))
    made.attn_mask_probs.zero_()
    return made


def _smp() -> nn.Module:
    import segmentation_models_pytorch as smp

    sizes = {name: value for name, value in _PLAIN.items() if name != "depth"}
    two = {"encoder_depth": 2, "encoder_output_indices": [0, -1], "decoder_intermediate_channels": (16, 16)}
    return smp.DPT("tu-vit_tiny_patch16_224", encoder_weights=None, classes=3, **two, **sizes).encoder


INSTANCES: dict[str, Callable[[], nn.Module]] = {
    "timm VisionTransformer": lambda: vit.VisionTransformer(**_TIMM),
    "timm VisionTransformer, DINOv2 with registers": lambda: vit.VisionTransformer(
        **{**_TIMM, "num_classes": 0, "init_values": 0.5, "reg_tokens": 4, "no_embed_class": True}
    ),
    "timm VisionTransformer, SwiGLU and RMSNorm": lambda: vit.VisionTransformer(
        **{**_TIMM, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "norm_layer": RmsNorm}
    ),
    "timm VisionTransformer, SigLIP": lambda: vit.VisionTransformer(
        **{**_TIMM, "num_classes": 0}, class_token=False, global_pool="map"
    ),
    "timm VisionTransformerDistilled": lambda: deit.VisionTransformerDistilled(**_TIMM),
    "timm SwinTransformer": lambda: swin_transformer.SwinTransformer(**_TIMM_WINDOWS),
    "timm SwinTransformerV2": lambda: swin_transformer_v2.SwinTransformerV2(**_TIMM_WINDOWS),
    "timm SwinTransformerV2Cr": lambda: swin_transformer_v2_cr.SwinTransformerV2Cr(**_TIMM_WINDOWS),
    "timm Beit": lambda: beit.Beit(**_TIMM, use_rel_pos_bias=True, use_abs_pos_emb=False, init_values=0.5),
    "timm Eva, EVA-02": lambda: _eva(swiglu_mlp=True, scale_mlp=True, qkv_fused=False, mlp_ratio=8 / 3),
    "timm Eva, DINOv3": lambda: _eva(
        num_classes=0,
        global_pool="token",
        rope_type="dinov3",
        use_abs_pos_emb=False,
        num_reg_tokens=4,
        init_values=0.5,
        rope_rotate_half=True,
        dynamic_img_size=False,
    ),
    "timm Eva, post-norm": lambda: _eva(use_post_norm=True),
    "timm VisionTransformerRelPos": lambda: relpos.VisionTransformerRelPos(**_TIMM, init_values=0.5),
    "timm VisionTransformerRelPos, post-norm": lambda: relpos.VisionTransformerRelPos(
        **_TIMM, block_fn=relpos.ResPostRelPosBlock, rel_pos_type="mlp_swin"
    ),
    "timm NaFlexVit": lambda: _naflex(init_values=0.5),
    "timm NaFlexVit, C-RADIO": lambda: _naflex(class_token=True, global_pool="token", reg_tokens=7),
    "Hugging Face ViT": lambda: _hf("ViTForImageClassification", "ViTConfig", **_HF, num_labels=100),
    "Hugging Face DeiT": lambda: _hf("DeiTForImageClassification", "DeiTConfig", **_HF, num_labels=100),
    "Hugging Face DeiT with a teacher": lambda: _hf(
        "DeiTForImageClassificationWithTeacher", "DeiTConfig", **_HF, num_labels=100
    ),
    "Hugging Face ViTMAE": lambda: _hf("ViTMAEModel", "ViTMAEConfig", **_HF),
    "Hugging Face BEiT": lambda: _hf(
        "BeitForImageClassification", "BeitConfig", **_HF, num_labels=100, use_relative_position_bias=True
    ),
    "Hugging Face Swin": lambda: _hf("SwinForImageClassification", "SwinConfig", **_HF_WINDOWS),
    "Hugging Face SwinV2": lambda: _hf("Swinv2ForImageClassification", "Swinv2Config", **_HF_WINDOWS),
    "Hugging Face DINOv2": lambda: _hf("Dinov2Model", "Dinov2Config", **_HF, layerscale_value=0.5),
    "Hugging Face DINOv2 with registers": lambda: _hf(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", **_HF, num_labels=100
    ),
    "Hugging Face DINOv3": lambda: _hf("DINOv3ViTModel", "DINOv3ViTConfig", **_HF, num_register_tokens=4),
    "Hugging Face CLIP": lambda: _hf("CLIPVisionModelWithProjection", "CLIPVisionConfig", **_HF, projection_dim=96),
    "Hugging Face SigLIP": lambda: _hf("SiglipVisionModel", "SiglipVisionConfig", **_HF),
    "Hugging Face SigLIP 2, NaFlex": lambda: _siglip2(),
    "Hugging Face Data2Vec-Vision": lambda: _hf(
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        **{**_HF, "num_labels": 100, "use_relative_position_bias": True},
    ),
    "Hugging Face I-JEPA": lambda: _hf("IJepaForImageClassification", "IJepaConfig", **_HF, num_labels=100),
    "Hugging Face ViT-MSN": lambda: _hf("ViTMSNForImageClassification", "ViTMSNConfig", **_HF, num_labels=100),
    "torchvision VisionTransformer": lambda: torchvision_vit.VisionTransformer(
        image_size=64, patch_size=8, num_layers=2, num_heads=2, hidden_dim=128, mlp_dim=512, num_classes=100
    ),
    "torchvision SwinTransformer": lambda: torchvision_swin.SwinTransformer(**_TV_WINDOWS),
    "torchvision SwinTransformer, v2": lambda: torchvision_swin.SwinTransformer(
        **_TV_WINDOWS,
        block=torchvision_swin.SwinTransformerBlockV2,
        downsample_layer=torchvision_swin.PatchMergingV2,
    ),
    "timm features_only, ViT": lambda: _features("vit_tiny_patch16_224", **_PLAIN),
    "timm features_only, Swin": lambda: _features("swin_tiny_patch4_window7_224", **_TIMM_WINDOWS),
    "Hugging Face SwinBackbone": lambda: _maps("SwinBackbone", "SwinConfig", ["stage1", "stage2"], **_HF_WINDOWS),
    "Hugging Face Dinov2Backbone": lambda: _maps("Dinov2Backbone", "Dinov2Config", ["stage1", "stage2"], **_HF),
    "Hugging Face RF-DETR's DINOv2": lambda: _rfdetr(),
    "Hugging Face DPT's ViT": lambda: hf.DPTModel(
        hf.DPTConfig(**_HF, backbone_out_indices=[0, 1], neck_hidden_sizes=[64, 64])
    ),
    "Hugging Face MaskFormer's Swin": lambda: _maskformer(),
    "Hugging Face ViTDet": lambda: hf.VitDetBackbone(
        hf.VitDetConfig(
            **{name: value for name, value in _HF.items() if name != "intermediate_size"},
            pretrain_image_size=64,
            window_size=4,
            window_block_indices=[0],
            use_relative_position_embeddings=True,
        )
    ),
    "Hugging Face EoMT": lambda: _eomt(),
    "segmentation-models-pytorch DPT's ViT": lambda: _smp(),
}
