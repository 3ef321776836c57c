"""Detection and panoptic segmentation: the DETR family and its relatives in transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from experiments.zoo.packages_models.inputs import images
from experiments.zoo.packages_models.network import Field

DETECTION = Field()
_network = DETECTION.network
SIZES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 5,
    "num_labels": 3,
    "disable_custom_kernels": True,
}


class Detections(nn.Module):
    """A detector as the function from images to class logits and boxes (or masks) of its queries."""

    def __init__(self, model: nn.Module, *parts: str) -> None:
        super().__init__()
        self.model, self.parts = model, parts or ("logits", "pred_boxes")

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(pixel_values=pixel_values)
        return tuple(getattr(outputs, part) for part in self.parts)


def _backbone(stages: int = 4) -> Any:
    from transformers import ResNetConfig

    names = [f"stage{number + 1}" for number in range(4 - stages + 0, 4)]
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 1, 1, 1]}
    return ResNetConfig(**sizes, layer_type="basic", out_features=names)


def _detector(kind: str, stages: int = 1, **settings: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, kind.replace("ForObjectDetection", "") + "Config")
    made = config(backbone_config=_backbone(stages), use_timm_backbone=False, **settings)
    return Detections(getattr(transformers, kind)(made))


@_network("transformers", images(64))
def detr() -> nn.Module:
    return _detector("DetrForObjectDetection", **SIZES)


@_network("transformers", images(64))
def conditional_detr() -> nn.Module:
    return _detector("ConditionalDetrForObjectDetection", **SIZES)


@_network("transformers", images(64))
def table_transformer() -> nn.Module:
    return _detector("TableTransformerForObjectDetection", **SIZES)


@_network("transformers", images(64))
def deformable_detr() -> nn.Module:
    points = {"num_feature_levels": 2, "encoder_n_points": 2, "decoder_n_points": 2}
    return _detector("DeformableDetrForObjectDetection", 2, **SIZES, **points)


@_network("transformers", images(64))
def deformable_detr_of_two_stages() -> nn.Module:
    points = {"num_feature_levels": 2, "encoder_n_points": 2, "decoder_n_points": 2}
    more = {"two_stage": True, "with_box_refine": True, "two_stage_num_proposals": 5}
    return _detector("DeformableDetrForObjectDetection", 2, **SIZES, **points, **more)


def _real_time(kind: str, **more: Any) -> nn.Module:
    import transformers

    backbone = transformers.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    sizes = {
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 24, 32],
        "encoder_ffn_dim": 48,
        "d_model": 32,
    }
    sizes |= {
        "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 48,
        "decoder_layers": 2,
        "num_queries": 5,
    }
    sizes |= {"decoder_attention_heads": 4, "encoder_attention_heads": 4, "num_labels": 3, "num_denoising": 0}
    config = getattr(transformers, f"{kind}Config")(backbone_config=backbone, **{**sizes, **more})
    return Detections(getattr(transformers, f"{kind}ForObjectDetection")(config))


@_network("transformers", images(64))
def rt_detr() -> nn.Module:
    return _real_time("RTDetr", hidden_expansion=0.5)


@_network("transformers", images(64))
def rt_detr_v2() -> nn.Module:
    return _real_time("RTDetrV2", hidden_expansion=0.5)


@_network("transformers", images(64))
def d_fine() -> nn.Module:
    return _real_time(
        "DFine", decoder_n_points=[2, 2, 2], max_num_bins=8, num_feature_levels=3, hidden_expansion=0.5
    )


@_network("transformers", images(32))
def yolos() -> nn.Module:
    from transformers import YolosConfig, YolosForObjectDetection

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    more = {"image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 5, "num_labels": 3}
    return Detections(YolosForObjectDetection(YolosConfig(**sizes, **more)))


@_network("transformers", images(64))
def mask_former() -> nn.Module:
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, SwinConfig

    swin = {
        "image_size": 64,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 4],
    }
    backbone = SwinConfig(**swin, window_size=4, out_features=["stage1", "stage2", "stage3", "stage4"])
    decoder = DetrConfig(backbone_config=_backbone(1), **SIZES)
    sizes = {"fpn_feature_size": 32, "mask_feature_size": 16}
    config = MaskFormerConfig(**sizes, backbone_config=backbone, decoder_config=decoder, num_labels=3)
    return Detections(
        MaskFormerForInstanceSegmentation(config), "class_queries_logits", "masks_queries_logits"
    )


@_network("transformers", images(64))
def mask2former() -> nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    swin = {
        "image_size": 64,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 4],
    }
    backbone = SwinConfig(**swin, window_size=4, out_features=["stage1", "stage2", "stage3", "stage4"])
    sizes = {"feature_size": 32, "mask_feature_size": 16, "hidden_dim": 32, "encoder_feedforward_dim": 48}
    sizes |= {
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_attention_heads": 4,
        "dim_feedforward": 48,
        "num_queries": 5,
    }
    config = Mask2FormerConfig(backbone_config=backbone, **sizes, num_labels=3)
    return Detections(
        Mask2FormerForUniversalSegmentation(config), "class_queries_logits", "masks_queries_logits"
    )
