"""Networks of diffusion and image generation: diffusers, denoising_diffusion_pytorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from experiments.zoo.packages_models.inputs import images, noise
from experiments.zoo.packages_models.network import Field, Part

DIFFUSION = Field()
_network = DIFFUSION.network
CHANNELS: dict[str, Any] = {"block_out_channels": (16, 32), "norm_num_groups": 4, "layers_per_block": 1}


def noisy_images(batch: int) -> tuple[Any, ...]:
    return torch.randn(batch, 3, 16, 16), torch.randint(0, 900, (batch,))


def noisy_latents(batch: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 4, 8, 8),
        "timestep": torch.randint(0, 900, (batch,)),
        "encoder_hidden_states": torch.randn(batch, 5, 24),
    }


def conditioned(batch: int) -> tuple[Any, ...]:
    return torch.randn(batch, 4, 8, 8), torch.randint(0, 900, (batch,)), torch.randn(batch, 5, 24)


@_network("diffusers", noisy_images)
def unet2d() -> nn.Module:
    from diffusers import UNet2DModel

    blocks = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return Part(UNet2DModel(16, 3, 3, **blocks, **CHANNELS, attention_head_dim=8), "sample")


@_network("diffusers", conditioned)
def unet2d_condition() -> nn.Module:
    from diffusers import UNet2DConditionModel

    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    sizes = {"cross_attention_dim": 24, "attention_head_dim": 2}
    return Part(UNet2DConditionModel(8, 4, 4, **blocks, **CHANNELS, **sizes), "sample")


@_network("diffusers", lambda batch: (torch.randn(batch, 4, 32), torch.randint(0, 900, (batch,))))
def unet1d() -> nn.Module:
    from diffusers import UNet1DModel

    return Part(
        UNet1DModel(
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
            up_block_types=("UpResnetBlock1D",),
            mid_block_type="MidResTemporalBlock1D",
            out_block_type="OutConv1DBlock",
            norm_num_groups=4,
            layers_per_block=1,
            act_fn="mish",
            use_timestep_embedding=True,
        ),
        "sample",
    )


@_network("diffusers", images(16))
def autoencoder_kl() -> nn.Module:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return Part(AutoencoderKL(3, 3, **blocks, **CHANNELS), "sample")


@_network("diffusers", images(16))
def autoencoder_tiny() -> nn.Module:
    from diffusers import AutoencoderTiny

    return Part(
        AutoencoderTiny(
            encoder_block_out_channels=(16, 16),
            decoder_block_out_channels=(16, 16),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ),
        "sample",
    )


@_network("diffusers", images(16))
def vq_model() -> nn.Module:
    from diffusers import VQModel

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return Part(VQModel(3, 3, **blocks, **CHANNELS, num_vq_embeddings=32), "sample")


@_network(
    "diffusers",
    lambda batch: {
        "hidden_states": torch.randn(batch, 4, 8, 8),
        "timestep": torch.randint(0, 900, (batch,)),
        "class_labels": torch.randint(0, 9, (batch,)),
    },
)
def dit() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    sizes = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "norm_num_groups": 4}
    return Part(
        DiTTransformer2DModel(**sizes, in_channels=4, sample_size=8, num_embeds_ada_norm=10), "sample"
    )


@_network("diffusers", noisy_latents)
def pixart() -> nn.Module:
    from diffusers import PixArtTransformer2DModel

    sizes = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "norm_num_groups": 4}
    more = {
        "in_channels": 4,
        "out_channels": 8,
        "sample_size": 8,
        "caption_channels": 24,
        "cross_attention_dim": 32,
    }
    return Part(PixArtTransformer2DModel(**sizes, **more, use_additional_conditions=False), "sample")


@_network("diffusers", lambda batch: {**noisy_latents(batch), "pooled_projections": torch.randn(batch, 20)})
def stable_diffusion_3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    sizes = {
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 2,
        "in_channels": 4,
        "sample_size": 8,
    }
    more = {"joint_attention_dim": 24, "caption_projection_dim": 32, "pooled_projection_dim": 20}
    return Part(SD3Transformer2DModel(**sizes, **more, out_channels=4, pos_embed_max_size=8), "sample")


def flux_inputs(batch: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 16, 4),
        "encoder_hidden_states": torch.randn(batch, 5, 24),
        "pooled_projections": torch.randn(batch, 20),
        "timestep": torch.rand(batch),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(5, 3),
    }


@_network("diffusers", flux_inputs)
def flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    sizes = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 1, "num_single_layers": 1}
    more = {"joint_attention_dim": 24, "pooled_projection_dim": 20, "axes_dims_rope": (2, 2, 4)}
    return Part(FluxTransformer2DModel(**sizes, **more, in_channels=4, guidance_embeds=False), "sample")


def prior_inputs(batch: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, 16),
        "timestep": torch.randint(0, 900, (batch,)),
        "proj_embedding": torch.randn(batch, 16),
        "encoder_hidden_states": torch.randn(batch, 7, 16),
    }


@_network("diffusers", prior_inputs)
def prior_transformer() -> nn.Module:
    from diffusers import PriorTransformer

    sizes = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2}
    return Part(PriorTransformer(**sizes, embedding_dim=16, num_embeddings=7), "predicted_image_embedding")


@_network("denoising-diffusion-pytorch", noisy_images)
def ddpm_unet() -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    return Unet(8, dim_mults=(1, 2), attn_dim_head=8, attn_heads=2, flash_attn=False)


@_network(
    "denoising-diffusion-pytorch", lambda batch: (torch.randn(batch, 3, 32), torch.randint(0, 900, (batch,)))
)
def ddpm_unet1d() -> nn.Module:
    from denoising_diffusion_pytorch import Unet1D

    return Unet1D(8, dim_mults=(1, 2), channels=3, attn_dim_head=8, attn_heads=2)


@_network("denoising-diffusion-pytorch", noisy_images)
def karras_unet() -> nn.Module:
    from denoising_diffusion_pytorch import KarrasUnet

    sizes = {"image_size": 16, "dim": 8, "dim_max": 16, "num_downsamples": 1, "num_blocks_per_stage": 1}
    return KarrasUnet(**sizes, channels=3, attn_dim_head=8, fourier_dim=8, attn_flash=False)


@_network("vector-quantize-pytorch", noise(12))
def finite_scalar_autoencoder() -> nn.Module:
    from vector_quantize_pytorch import FSQ

    encoder = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
    decoder = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 12))
    return nn.Sequential(encoder, Unsqueezed(Part(FSQ([5, 5, 5]), 0)), decoder)


@_network("vector-quantize-pytorch", noise(12))
def vector_quantised_autoencoder() -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    encoder = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 8))
    decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 12))
    return nn.Sequential(encoder, Unsqueezed(Part(VectorQuantize(8, 16), 0)), decoder)


class Unsqueezed(nn.Module):
    """Give each sample as a sequence of one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(x[:, None])[:, 0]
        return found
