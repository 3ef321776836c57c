"""Transformers and mixers: vit_pytorch, x_transformers, perceiver_pytorch and more, for images, words and series."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from experiments.zoo.packages_models.inputs import images, noise, words
from experiments.zoo.packages_models.network import Field

ATTENTION = Field()
_network = ATTENTION.network
VIT: dict[str, Any] = {"image_size": 32, "patch_size": 4, "num_classes": 5, "dim": 32, "depth": 2, "heads": 4}
LAYERS: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 4, "attn_dim_head": 8}


def _decoder(**settings: Any) -> nn.Module:
    from x_transformers import Decoder, TransformerWrapper

    return TransformerWrapper(num_tokens=99, max_seq_len=16, attn_layers=Decoder(**LAYERS, **settings))


@_network("vit-pytorch", images(32))
def vit() -> nn.Module:
    from vit_pytorch import ViT

    return ViT(**VIT, mlp_dim=48, dim_head=8)


@_network("vit-pytorch", images(32))
def deep_vit() -> nn.Module:
    from vit_pytorch.deepvit import DeepViT

    return DeepViT(**VIT, mlp_dim=48, dim_head=8)


@_network("vit-pytorch", images(32))
def cross_vit() -> nn.Module:
    from vit_pytorch.cross_vit import CrossViT

    small = {
        "sm_dim": 16,
        "sm_patch_size": 4,
        "sm_enc_depth": 1,
        "sm_enc_heads": 2,
        "sm_enc_mlp_dim": 32,
        "sm_enc_dim_head": 8,
    }
    large = {
        "lg_dim": 24,
        "lg_patch_size": 8,
        "lg_enc_depth": 1,
        "lg_enc_heads": 2,
        "lg_enc_mlp_dim": 32,
        "lg_enc_dim_head": 8,
    }
    cross = {"cross_attn_depth": 1, "cross_attn_heads": 2, "cross_attn_dim_head": 8, "depth": 1}
    return CrossViT(image_size=32, num_classes=5, **small, **large, **cross)


@_network("vit-pytorch", images(32))
def max_vit() -> nn.Module:
    from vit_pytorch.max_vit import MaxViT

    return MaxViT(num_classes=5, dim=16, depth=(1, 1), dim_head=8, dim_conv_stem=8, window_size=4)


@_network("vit-pytorch", images(32))
def vision_of_registers() -> nn.Module:
    from vit_pytorch.simple_vit_with_register_tokens import SimpleViT

    return SimpleViT(**VIT, mlp_dim=48, dim_head=8)


@_network("vit-pytorch", images(32))
def nested() -> nn.Module:
    from vit_pytorch.nest import NesT

    return NesT(
        image_size=32, patch_size=4, dim=16, heads=2, num_hierarchies=2, block_repeats=(1, 1), num_classes=5
    )


@_network("vit-pytorch", images(16))
def rotary_by_flex_attention() -> nn.Module:
    from vit_pytorch.vit_nd_rotary import ViTND

    sizes = {"ndim": 2, "input_shape": (16, 16), "patch_size": 4, "num_classes": 5, "dim": 32, "depth": 2}
    return ViTND(**sizes, heads=4, mlp_dim=48, dim_head=16)


@_network("titans-pytorch", words(16))
def memory_as_context() -> nn.Module:
    from titans_pytorch import MemoryAsContextTransformer

    sizes = {"num_tokens": 99, "dim": 32, "depth": 2, "heads": 4, "dim_head": 8, "segment_len": 8}
    memory = {"num_persist_mem_tokens": 2, "num_longterm_mem_tokens": 2, "neural_memory_layers": (1,)}
    return MemoryAsContextTransformer(**sizes, **memory, use_flex_attn=False)


@_network("x-transformers", words())
def rotary_gated_decoder() -> nn.Module:
    return _decoder(rotary_pos_emb=True, ff_glu=True, use_rmsnorm=True, attn_kv_heads=2)


@_network("x-transformers", words())
def alibi_talking_decoder() -> nn.Module:
    return _decoder(alibi_pos_bias=True, attn_pre_talking_heads=True, attn_qk_norm=True)


@_network("x-transformers", words())
def relative_decoder() -> nn.Module:
    return _decoder(rel_pos_bias=True, shift_tokens=1, sandwich_norm=True, attn_num_mem_kv=2)


@_network("x-transformers", words())
def hyper_connected_decoder() -> nn.Module:
    return _decoder(num_residual_streams=2, ff_relu_squared=True)


@_network("perceiver-pytorch", noise(20, 3))
def perceiver() -> nn.Module:
    from perceiver_pytorch import Perceiver

    sizes = {"num_latents": 8, "latent_dim": 32, "cross_heads": 1, "latent_heads": 4, "cross_dim_head": 8}
    kinds = {"input_channels": 3, "input_axis": 1, "num_freq_bands": 2, "max_freq": 4.0, "depth": 2}
    return Perceiver(**sizes, **kinds, latent_dim_head=8, num_classes=5, weight_tie_layers=True)


@_network("perceiver-pytorch", noise(20, 12))
def perceiver_io() -> nn.Module:
    from perceiver_pytorch import PerceiverIO

    sizes = {"num_latents": 8, "latent_dim": 32, "cross_heads": 1, "latent_heads": 4, "cross_dim_head": 8}
    return nn.Sequential(
        PerceiverIO(depth=2, dim=12, queries_dim=16, **sizes, latent_dim_head=8), nn.Linear(32, 3)
    )


@_network("linear-attention-transformer", words(16))
def linear_attention() -> nn.Module:
    from linear_attention_transformer import LinearAttentionTransformerLM

    sizes = {"num_tokens": 99, "dim": 32, "heads": 4, "depth": 2, "max_seq_len": 16, "n_local_attn_heads": 2}
    return LinearAttentionTransformerLM(**sizes, local_attn_window_size=8, causal=True, blindspot_size=1)


@_network("reformer-pytorch", noise(16, 16))
def reversible() -> nn.Module:
    from reformer_pytorch import Reformer

    body = Reformer(dim=32, depth=2, heads=4, bucket_size=4, n_hashes=2, use_full_attn=True)
    return nn.Sequential(nn.Linear(16, 32), body, nn.Linear(32, 3))


@_network("g-mlp-pytorch", words(9))
def gated_mlp() -> nn.Module:
    from g_mlp_pytorch import gMLP

    return gMLP(num_tokens=99, dim=32, depth=2, seq_len=9, causal=True, ff_mult=2)


@_network("mlp-mixer-pytorch", images(32))
def mixer() -> nn.Module:
    from mlp_mixer_pytorch import MLPMixer

    return MLPMixer(image_size=32, channels=3, patch_size=8, dim=32, depth=2, num_classes=5)


@_network("iTransformer", noise(12, 5))
def inverted() -> nn.Module:
    from iTransformer import iTransformer

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {"num_variates": 5, "lookback_len": 12, "dim": 32, "depth": 2, "heads": 4, "dim_head": 8}
            self.model = iTransformer(**sizes, pred_length=(4, 6), use_reversible_instance_norm=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(x)[4]
            return found

    return Forecast()


@_network("enformer-pytorch", lambda batch: torch.randint(0, 5, (batch, 512)))
def enformer() -> nn.Module:
    from enformer_pytorch import Enformer

    sizes = {"dim": 48, "depth": 1, "heads": 4, "attn_dim_key": 8, "target_length": 2, "num_downsamples": 7}
    model = Enformer.from_hparams(**sizes, dim_divisible_by=4, output_heads={"human": 5})

    class Human(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, sequence: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(sequence, head="human")
            return found

    return Human()


@_network("nbeats-pytorch", noise(10))
def basis_expansion() -> nn.Module:
    from nbeats_pytorch.model import NBeatsNet

    kinds = {"stack_types": (NBeatsNet.GENERIC_BLOCK, NBeatsNet.TREND_BLOCK, NBeatsNet.SEASONALITY_BLOCK)}
    sizes = {"forecast_length": 4, "backcast_length": 10, "thetas_dim": (4, 3, 4), "hidden_layer_units": 32}
    return NBeatsNet(device="cpu", **kinds, **sizes, nb_blocks_per_stack=1)


@_network("recurrent-memory-transformer-pytorch", words(12))
def recurrent_memory() -> nn.Module:
    from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {"num_tokens": 99, "dim": 32, "depth": 2, "heads": 4, "dim_head": 8, "seq_len": 12}
            self.model = RecurrentMemoryTransformer(**sizes, num_memory_tokens=3, use_flash_attn=False)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(words)[0]
            return found

    return Logits()
