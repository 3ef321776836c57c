"""A variety of timm's architectures, with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from experiments.zoo.entry import Entry
from experiments.zoo.torchvision_models import import_models

# fmt: off
NAMES = [
    "beit_base_patch16_224", "botnet26t_256", "caformer_s18", "cait_xxs24_224", "coat_tiny",
    "coatnet_0_rw_224", "convit_tiny", "convmixer_768_32", "convnext_atto", "convnextv2_atto",
    "crossvit_tiny_240", "cs3darknet_s", "cspresnet50", "darknet53", "davit_tiny", "deit_tiny_patch16_224",
    "deit3_small_patch16_224", "densenet121", "dla34", "dpn68", "edgenext_xx_small", "efficientformer_l1",
    "efficientformerv2_s0", "efficientnet_b0", "efficientnetv2_rw_t", "efficientvit_b0", "efficientvit_m0",
    "ese_vovnet19b_dw", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8", "fbnetc_100",
    "flexivit_small", "focalnet_tiny_srf", "gcresnet33ts", "gcvit_xxtiny", "gernet_s", "ghostnet_050",
    "ghostnetv2_100", "halonet26t", "hardcorenas_a", "hgnet_tiny", "hgnetv2_b0", "hiera_tiny_224",
    "hrnet_w18_small", "inception_next_tiny", "inception_resnet_v2", "inception_v4", "lambda_resnet26t",
    "lcnet_050", "legacy_senet154", "levit_128s", "maxvit_rmlp_pico_rw_256", "maxxvit_rmlp_nano_rw_256",
    "mixer_s32_224", "mixnet_s", "mnasnet_small", "mobilenetv2_050", "mobilenetv3_small_050",
    "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny",
    "nasnetalarge", "nest_tiny", "nf_resnet50", "nfnet_f0", "pit_ti_224", "pnasnet5large", "poolformer_s12",
    "pvt_v2_b0", "regnetx_002", "regnety_002", "regnetz_005", "repghostnet_050", "repvgg_a0", "repvit_m0_9",
    "res2net50_26w_4s", "resmlp_12_224", "resnest14d", "resnet18", "resnetv2_50", "resnext50_32x4d",
    "rexnet_100", "samvit_base_patch16_224", "sebotnet33ts_256", "selecsls42", "semnasnet_075",
    "seresnet18", "sequencer2d_s", "skresnet18", "spnasnet_100", "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "tf_efficientnet_b0", "tiny_vit_5m_224", "tinynet_e",
    "tnt_s_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny", "vit_tiny_patch16_224",
    "vit_relpos_small_patch16_224", "vit_small_patch14_dinov2", "volo_d1_224", "xception41",
    "xcit_nano_12_p16_224",
]
# fmt: on


def entries() -> Iterator[Entry]:
    """The named architectures that the installed timm has."""
    import_models()
    import timm

    for name in NAMES:
        if timm.is_model(name):
            yield Entry(name, partial(timm.create_model, name), partial(_inputs, timm, name))


def _inputs(timm: Any, name: str) -> torch.Tensor:
    model: nn.Module = timm.create_model(name)
    return torch.randn(2, *timm.data.resolve_data_config({}, model=model)["input_size"])
