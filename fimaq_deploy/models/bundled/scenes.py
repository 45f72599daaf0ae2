"""The shipped detectors and the segmenter of `fimaq_deploy.data.scenes`: an encoder inside a model, three ways.

`maskrcnn_shapes` is torchvision's Mask R-CNN on a timm Swin that was made with `features_only`; `detr_shapes` is
RT-DETR of transformers on its own Swin backbone; `segmenter_shapes` is a timm Swin, made with `features_only`, under a
small convolutional decoder. All of them read 96×96 colour pictures in [-1, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError

IMAGE_SIZE = 96
CLASSES = 8
WIDTH = 48  # of the feature pyramid


class SwinPyramid(nn.Module):
    """What torchvision's detectors call a backbone: a timm Swin and a feature pyramid on the maps that it hands out."""

    def __init__(self, body: nn.Module, channels: list[int], out_channels: int) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(channels, out_channels)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) to maps (N, out_channels, h, w) by name, the largest first."""
        maps = {str(level): found.permute(0, 3, 1, 2) for level, found in enumerate(self.body(images))}
        return self.fpn(maps)


def maskrcnn_shapes() -> nn.Module:
    """Mask R-CNN on a Swin of widths 32 to 128 (windows of 4×4, three stages of 2 blocks): maps of strides 4 and 8."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    anchors = AnchorGenerator(((14, 20), (26, 36)), ((0.6, 1.0, 1.7),) * 2)
    return MaskRCNN(
        SwinPyramid(_swin((1, 2)), [64, 128], WIDTH),
        num_classes=None,
        min_size=IMAGE_SIZE,
        max_size=IMAGE_SIZE,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=80,
        rpn_post_nms_top_n_test=40,
        rpn_batch_size_per_image=96,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 6, 2, canonical_scale=28, canonical_level=3),
        box_head=TwoMLPHead(WIDTH * 36, 128),
        box_predictor=FastRCNNPredictor(128, CLASSES + 1),
        box_batch_size_per_image=48,
        box_detections_per_img=20,
        mask_roi_pool=MultiScaleRoIAlign(["0", "1"], 12, 2, canonical_scale=28, canonical_level=3),
        mask_head=MaskRCNNHeads(WIDTH, (32, 32), 1),
        mask_predictor=MaskRCNNPredictor(32, 32, CLASSES + 1),
    )


def detr_shapes() -> nn.Module:
    """RT-DETR, 25 queries of width 64 in 2 decoder layers, on the Swin of transformers with the sizes of the other one.

    Raises:
        UserError: transformers is not installed.
    """
    try:
        from transformers import RTDetrConfig, RTDetrForObjectDetection, SwinConfig
    except ImportError as error:
        raise UserError("detr_shapes is a model of transformers: pip install 'fimaq-deploy[transformers]'") from error
    from fimaq_deploy.models.bundled import SILHOUETTES

    body = SwinConfig(image_size=IMAGE_SIZE, patch_size=2, embed_dim=32, depths=[2, 2, 2], num_heads=[2, 4, 8],
                      window_size=4, drop_path_rate=0.0)  # fmt: skip
    body.out_features = ["stage2", "stage3"]
    config = RTDetrConfig(
        backbone_config=body,
        encoder_hidden_dim=64,
        encoder_in_channels=[64, 128],
        feat_strides=[4, 8],
        encode_proj_layers=[1],
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=64,
        num_queries=25,
        decoder_in_channels=[64, 64],
        decoder_ffn_dim=128,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_feature_levels=2,
        num_denoising=20,
        id2label=dict(enumerate(SILHOUETTES)),
        label2id={name: number for number, name in enumerate(SILHOUETTES)},
    )
    return RTDetrForObjectDetection(config)


class Segmenter(nn.Module):
    """A Swin's maps of all its stages, the deepest with more context, brought to one width and to the size of the
    largest, added, convolved, and enlarged to a score of each class at each pixel."""

    def __init__(self, encoder: nn.Module, channels: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        *shallow, deep = channels
        context = [
            part for _ in range(2) for part in (nn.Conv2d(deep, deep, 3, padding=1), nn.GroupNorm(8, deep), nn.GELU())
        ]
        laterals = [nn.Conv2d(each, width, 1) for each in shallow]
        self.laterals = nn.ModuleList([*laterals, nn.Sequential(*context, nn.Conv2d(deep, width, 1))])
        self.decoder = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to scores (N, classes, H, W)."""
        pairs = zip(self.laterals, self.encoder(images), strict=True)
        maps = [lateral(found.permute(0, 3, 1, 2)) for lateral, found in pairs]
        joined = torch.stack([_enlarged(each, maps[0].shape[-2:]) for each in maps]).sum(0)
        return _enlarged(self.decoder(joined), images.shape[-2:])


def segmenter_shapes() -> nn.Module:
    """A Swin of the same sizes, maps of strides 2, 4 and 8; scores of the background and the eight classes."""
    return Segmenter(_swin((0, 1, 2)), (32, 64, 128), 48, CLASSES + 1)


def _enlarged(maps: Tensor, size: torch.Size) -> Tensor:
    return nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _swin(taps: tuple[int, ...]) -> nn.Module:
    """Windows of 4×4, three stages of 2 blocks, width 32 to 128; maps (N, H, W, C) of the stages named."""
    import timm

    sizes: dict[str, Any] = {
        "patch_size": 2,
        "embed_dim": 32,
        "depths": (2, 2, 2),
        "num_heads": (2, 4, 8),
        "window_size": 4,
    }
    name = "swin_tiny_patch4_window7_224"
    return timm.create_model(name, features_only=True, img_size=IMAGE_SIZE, out_indices=taps, **sizes)
