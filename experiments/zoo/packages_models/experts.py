"""Mixtures of experts: st_moe_pytorch, mixture_of_experts, soft_moe_pytorch, transformers."""

from __future__ import annotations

from typing import Any

from torch import nn

from experiments.zoo.packages_models.inputs import noise, tokens
from experiments.zoo.packages_models.network import Field, Part

EXPERTS = Field()
_network = EXPERTS.network
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 99,
}


def _between(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), layer, nn.Linear(16, 3))


@_network("st-moe-pytorch", noise(7, 5))
def stable_experts() -> nn.Module:
    from st_moe_pytorch import MoE

    return _between(Part(MoE(dim=16, num_experts=4, gating_top_n=2, expert_hidden_mult=2), 0))


@_network("st-moe-pytorch", noise(7, 5))
def stable_block() -> nn.Module:
    from st_moe_pytorch import MoE, SparseMoEBlock

    experts = MoE(dim=16, num_experts=4, gating_top_n=2, expert_hidden_mult=2)
    return _between(Part(SparseMoEBlock(experts, add_ff_before=True, add_ff_after=True), 0))


@_network("mixture-of-experts", noise(8, 5))
def sparse_experts() -> nn.Module:
    from mixture_of_experts import MoE

    return _between(Part(MoE(dim=16, num_experts=4, hidden_dim=32, second_policy_eval="all"), 0))


@_network("mixture-of-experts", noise(8, 5))
def experts_of_experts() -> nn.Module:
    from mixture_of_experts import HeirarchicalMoE

    return _between(
        Part(HeirarchicalMoE(dim=16, num_experts=(2, 2), hidden_dim=32, second_policy_eval="all"), 0)
    )


@_network("soft-moe-pytorch", noise(7, 5))
def soft_experts() -> nn.Module:
    from soft_moe_pytorch import SoftMoE

    return _between(SoftMoE(dim=16, num_experts=4, num_slots=2, geglu=True))


def _causal(kind: str, **settings: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**SIZES, "use_cache": False, **settings})
    return Part(getattr(transformers, f"{kind}ForCausalLM")(config), "logits")


@_network("transformers", tokens)
def mixtral() -> nn.Module:
    return _causal("Mixtral", num_key_value_heads=2, num_local_experts=4)


@_network("transformers", tokens)
def qwen3_experts() -> nn.Module:
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
    return _causal("Qwen3Moe", **sizes, num_key_value_heads=2)


@_network("transformers", tokens)
def jet_moe() -> nn.Module:
    sizes = {"kv_channels": 8, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    return _causal("JetMoe", **sizes)


@_network("transformers", tokens)
def granite_experts() -> nn.Module:
    return _causal("GraniteMoe", num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)


@_network("transformers", tokens)
def deepseek_v3() -> nn.Module:
    sizes = {
        "q_lora_rank": 12,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    }
    more = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 24,
    }
    return _causal("DeepseekV3", **sizes, **more, first_k_dense_replace=1, num_key_value_heads=4)


@_network("transformers", tokens)
def gpt_oss() -> nn.Module:
    sizes = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "num_key_value_heads": 2}
    return _causal("GptOss", **sizes)


@_network("transformers", lambda batch: {**tokens(batch), "decoder_input_ids": tokens(batch)["input_ids"]})
def switch() -> nn.Module:
    from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    config = SwitchTransformersConfig(
        **sizes, num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1
    )
    return Part(SwitchTransformersForConditionalGeneration(config), "logits")
