"""Images, videos, and images with text."""

from __future__ import annotations

from experiments.zoo.transformers_models.recipe import (
    SMALL,
    STAGES,
    VISION,
    WIDE_STAGES,
    WINDOWS,
    Recipe,
    frames,
    images,
    images_and_tokens,
    large_images,
)

RECIPES: list[Recipe] = [
    Recipe("beit", "BeitForImageClassification", VISION, images),
    Recipe(
        "bit",
        "BitForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1], "num_groups": 4},
        large_images,
    ),
    Recipe(
        "clip",
        "CLIPModel",
        {"text_config": SMALL, "vision_config": VISION, "projection_dim": 16},
        images_and_tokens,
        "CLIPConfig",
    ),
    Recipe("convnext", "ConvNextForImageClassification", STAGES, large_images),
    Recipe("convnextv2", "ConvNextV2ForImageClassification", STAGES, large_images),
    Recipe("deit", "DeiTForImageClassification", VISION, images),
    Recipe("dinov2", "Dinov2ForImageClassification", {**VISION, "mlp_ratio": 2}, images),
    Recipe(
        "efficientnet",
        "EfficientNetForImageClassification",
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
        large_images,
    ),
    Recipe(
        "focalnet",
        "FocalNetForImageClassification",
        {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 2, 1]},
        large_images,
    ),
    Recipe(
        "hiera",
        "HieraForImageClassification",
        {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]},
        large_images,
    ),
    Recipe("ijepa", "IJepaForImageClassification", VISION, images),
    Recipe(
        "levit",
        "LevitForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        large_images,
    ),
    Recipe(
        "mobilenet_v1",
        "MobileNetV1ForImageClassification",
        {"depth_multiplier": 0.25, "image_size": 64},
        large_images,
    ),
    Recipe(
        "mobilenet_v2",
        "MobileNetV2ForImageClassification",
        {"depth_multiplier": 0.25, "image_size": 64},
        large_images,
    ),
    Recipe(
        "mobilevit",
        "MobileViTForImageClassification",
        {"image_size": 64, "hidden_sizes": [32, 40, 48], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64]},
        large_images,
    ),
    Recipe(
        "poolformer",
        "PoolFormerForImageClassification",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        large_images,
    ),
    Recipe(
        "pvt",
        "PvtForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 4],
        },
        large_images,
    ),
    Recipe("regnet", "RegNetForImageClassification", {**WIDE_STAGES, "groups_width": 8}, large_images),
    Recipe("resnet", "ResNetForImageClassification", WIDE_STAGES, large_images),
    Recipe(
        "segformer",
        "SegformerForImageClassification",
        {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]},
        large_images,
    ),
    Recipe("siglip", "SiglipForImageClassification", {"vision_config": VISION, "text_config": SMALL}, images),
    Recipe("swin", "SwinForImageClassification", WINDOWS, images),
    Recipe("swinv2", "Swinv2ForImageClassification", WINDOWS, images),
    Recipe("timesformer", "TimesformerForVideoClassification", {**VISION, "num_frames": 4}, frames),
    Recipe("videomae", "VideoMAEForVideoClassification", {**VISION, "num_frames": 4}, frames),
    Recipe(
        "vilt", "ViltForQuestionAnswering", {**SMALL, "image_size": 32, "patch_size": 8}, images_and_tokens
    ),
    Recipe("vit", "ViTForImageClassification", VISION, images),
]
