"""A variety of timm's architectures, with random weights, on small images: the architecture is what counts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from experiments.zoo.entry import Entry
from experiments.zoo.torchvision_models import import_models

SIZE = 64
# These run on nothing smaller.
LARGER = {"efficientformer_l1": 224, "inception_resnet_v2": 96, "inception_v4": 96}

# fmt: off
OF_ANY_SIZE = [
    "caformer_s18", "convmixer_768_32", "convnext_atto", "convnextv2_atto", "crossvit_tiny_240", "cs3darknet_s",
    "cspresnet50", "darknet53", "davit_tiny", "densenet121", "dla34", "dpn68", "edgenext_xx_small",
    "efficientformer_l1", "efficientnet_b0", "efficientnetv2_rw_t", "efficientvit_b0", "ese_vovnet19b_dw",
    "fasternet_t0", "fastvit_t8", "fbnetc_100", "focalnet_tiny_srf", "ghostnet_050", "ghostnetv2_100",
    "hardcorenas_a", "hgnet_tiny", "hgnetv2_b0", "hrnet_w18_small", "inception_next_tiny",
    "inception_resnet_v2", "inception_v4", "lcnet_050", "mixnet_s", "mnasnet_small", "mobilenetv2_050",
    "mobilenetv3_small_050", "mobilenetv4_conv_small", "nf_resnet50", "nfnet_f0", "poolformer_s12", "pvt_v2_b0",
    "regnetx_002", "regnety_002", "regnetz_005", "repghostnet_050", "res2net50_26w_4s", "resnest14d", "resnet18",
    "resnetv2_50", "resnext50_32x4d", "rexnet_100", "selecsls42", "semnasnet_075", "seresnet18", "skresnet18",
    "spnasnet_100", "tf_efficientnet_b0", "tiny_vit_5m_224", "tinynet_e", "tresnet_m", "vgg11", "xception41",
]
BUILT_FOR_ONE_SIZE = [
    "botnet26t_256", "cait_xxs24_224", "coat_tiny", "coatnet_0_rw_224", "convit_tiny", "deit_tiny_patch16_224",
    "deit3_small_patch16_224", "efficientformerv2_s0", "efficientvit_m0", "eva02_tiny_patch14_224",
    "flexivit_small", "gcresnet33ts", "gcvit_xxtiny", "gernet_s", "hiera_tiny_224", "lambda_resnet26t",
    "levit_128s", "maxvit_rmlp_pico_rw_256", "maxxvit_rmlp_nano_rw_256", "mixer_s32_224", "mobileone_s0",
    "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny", "nest_tiny", "pit_ti_224", "repvgg_a0", "repvit_m0_9",
    "resmlp_12_224", "sebotnet33ts_256", "sequencer2d_s", "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "tnt_s_patch16_224", "twins_svt_small", "visformer_tiny",
    "vit_relpos_small_patch16_224", "vit_small_patch14_dinov2", "vit_tiny_patch16_224", "volo_d1_224",
    "xcit_nano_12_p16_224",
]
# fmt: on


def entries() -> Iterator[Entry]:
    """The named architectures that the installed timm has."""
    import_models()
    import timm

    for name in sorted(OF_ANY_SIZE + BUILT_FOR_ONE_SIZE):
        if timm.is_model(name):
            size = LARGER.get(name, SIZE)
            options = {"img_size": size} if name in BUILT_FOR_ONE_SIZE else {}
            yield Entry(name, partial(_make, timm, name, options), partial(torch.randn, 2, 3, size, size))


def _make(timm: Any, name: str, options: dict[str, int]) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=1000, **options)
    return model
