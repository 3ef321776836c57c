"""Segmentation and features of images and volumes: segmentation_models_pytorch, monai, kornia."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from experiments.zoo.packages_models.inputs import images, noise
from experiments.zoo.packages_models.network import Field, Part

SEGMENTATION = Field()
_network = SEGMENTATION.network
# timm's smallest encoder, without its weights.
ENCODER: dict[str, Any] = {"encoder_name": "tu-test_efficientnet", "encoder_weights": None, "classes": 2}
SMP = "segmentation-models-pytorch"


@_network(SMP, images(64))
def unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet(**ENCODER, decoder_channels=(32, 32, 16, 16, 16), decoder_attention_type="scse")


@_network(SMP, images(64))
def unet_plus_plus() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.UnetPlusPlus(**ENCODER, decoder_channels=(24, 16, 16, 8, 8))


@_network(SMP, images(64))
def fpn() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.FPN(**ENCODER, decoder_pyramid_channels=32, decoder_segmentation_channels=32)


@_network(SMP, images(64))
def linknet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Linknet(**ENCODER)


@_network(SMP, images(64))
def ma_net() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.MAnet(**ENCODER, decoder_channels=(24, 16, 16, 8, 8), decoder_pab_channels=8)


@_network(SMP, images(64))
def psp_net() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.PSPNet(**ENCODER, psp_out_channels=32)


@_network(SMP, images(64))
def deeplab_v3_plus() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus(**ENCODER, decoder_channels=32, decoder_atrous_rates=(1, 2, 3))


@_network(SMP, images(64))
def segformer() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Segformer(**ENCODER, decoder_segmentation_channels=32)


@_network(SMP, images(64))
def upernet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.UPerNet(**ENCODER, decoder_channels=32)


@_network("monai", noise(1, 16, 16, 16))
def volume_unet() -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(3, 1, 2, (8, 16, 32), (2, 2), num_res_units=2)


@_network("monai", noise(1, 16, 16, 16))
def seg_res_net() -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(3, 8, 1, 2, blocks_down=(1, 1, 1), blocks_up=(1, 1))


@_network("monai", noise(1, 32, 32))
def attention_unet() -> nn.Module:
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 1, 2, (8, 16, 32), (2, 2))


@_network("monai", noise(1, 32, 32))
def dyn_unet() -> nn.Module:
    from monai.networks.nets import DynUNet

    kernels, strides = (3, 3, 3), (1, 2, 2)
    return DynUNet(2, 1, 2, kernels, strides, strides[1:], filters=(8, 16, 32), res_block=True)


@_network("monai", noise(1, 32, 32))
def unetr() -> nn.Module:
    from monai.networks.nets import UNETR

    return UNETR(1, 2, (32, 32), feature_size=8, hidden_size=32, mlp_dim=48, num_heads=4, spatial_dims=2)


@_network("monai", noise(1, 64, 64))
def swin_unetr() -> nn.Module:
    from monai.networks.nets import SwinUNETR

    sizes = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2), "window_size": 4}
    return SwinUNETR(1, 2, **sizes, spatial_dims=2)


@_network("monai", noise(1, 16, 16, 16))
def v_net() -> nn.Module:
    from monai.networks.nets import HighResNet

    layers = [
        {"name": "conv_0", "n_features": 8, "kernel_size": 3},
        {"name": "res_1", "n_features": 8, "kernels": (3, 3), "repeat": 1},
        {"name": "res_2", "n_features": 16, "kernels": (3, 3), "repeat": 1},
        {"name": "conv_1", "n_features": 24, "kernel_size": 1},
        {"name": "conv_2", "kernel_size": 1},
    ]
    return HighResNet(3, 1, 2, layer_params=layers)


@_network("monai", noise(1, 32, 32))
def med_next() -> nn.Module:
    from monai.networks.nets import MedNeXt

    blocks = {"blocks_down": (1, 1), "blocks_up": (1, 1), "blocks_bottleneck": 1}
    return MedNeXt(2, 8, 1, 2, **blocks, kernel_size=3)


@_network("monai", lambda batch: (torch.randn(batch, 1, 16, 16), torch.randint(0, 900, (batch,))))
def diffusion_unet() -> nn.Module:
    from monai.networks.nets import DiffusionModelUNet

    sizes = {"channels": (8, 16), "num_res_blocks": 1, "norm_num_groups": 4, "num_head_channels": 8}
    return DiffusionModelUNet(2, 1, 1, **sizes, attention_levels=(False, True))


@_network("monai", noise(1, 32, 32))
def vq_vae() -> nn.Module:
    from monai.networks.nets import VQVAE

    sizes = {"channels": (8, 16), "num_res_layers": 1, "num_res_channels": (8, 16), "num_embeddings": 16}
    strides = {
        "downsample_parameters": ((2, 4, 1, 1),) * 2,
        "upsample_parameters": ((2, 4, 1, 1, 0),) * 2,
    }
    return Part(VQVAE(2, 1, 1, **sizes, **strides, embedding_dim=8), 0)


@_network("monai", noise(1, 32, 32))
def vision_transformer() -> nn.Module:
    from monai.networks.nets import ViT

    sizes = {"hidden_size": 32, "mlp_dim": 48, "num_layers": 2, "num_heads": 4}
    return Part(ViT(1, 32, 8, **sizes, spatial_dims=2, classification=True, num_classes=3), 0)


@_network("kornia", images(32, 1))
def t_feat() -> nn.Module:
    from kornia.feature import TFeat

    return TFeat(pretrained=False)


@_network("kornia", images(32))
def kornia_vit() -> nn.Module:
    from kornia.models.vit import VisionTransformer

    return nn.Sequential(VisionTransformer(32, 8, 3, 32, depth=2, num_heads=4), nn.Linear(32, 5))
