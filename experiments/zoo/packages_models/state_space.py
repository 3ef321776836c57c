"""State spaces, recurrent and spiking networks: mambapy, s5, minGRU_pytorch, ncps, snntorch, spikingjelly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.zoo.packages_models.inputs import noise, tokens, words
from experiments.zoo.packages_models.network import Field, Part

STATE_SPACE = Field()
_network = STATE_SPACE.network


def _between(body: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), body, nn.Linear(16, 3))


@_network("mambapy", noise(9, 5))
def mamba() -> nn.Module:
    from mambapy.mamba import Mamba, MambaConfig

    return _between(Mamba(MambaConfig(d_model=16, n_layers=2, d_state=4, pscan=False)))


@_network("mambapy", noise(8, 5))
def mamba_by_parallel_scan() -> nn.Module:
    from mambapy.mamba import Mamba, MambaConfig

    return _between(Mamba(MambaConfig(d_model=16, n_layers=1, d_state=4, pscan=True)))


@_network("mambapy", noise(9, 5))
def jamba() -> nn.Module:
    from mambapy.jamba import Jamba, JambaLMConfig

    sizes = {"d_model": 16, "n_layers": 2, "mlp_size": 32, "d_state": 4, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "attn_layer_offset": 1, "attn_layer_period": 2, "num_experts": 4}
    config = JambaLMConfig(
        **sizes, **more, num_experts_per_tok=2, expert_layer_offset=1, expert_layer_period=2
    )
    config.use_cuda, config.pscan = False, False
    return _between(Part(Jamba(config), 0))


@_network("s5-pytorch", noise(9, 5))
def simplified_state_space() -> nn.Module:
    from s5 import S5Block

    return _between(nn.Sequential(S5Block(16, 8, bidir=False), S5Block(16, 8, bidir=True)))


@_network("minGRU-pytorch", words(9))
def min_gru() -> nn.Module:
    from minGRU_pytorch.minLM import minLM

    return minLM(num_tokens=99, dim=24, depth=2, ff_mult=2, enable_conv=True)


@_network("transformers", tokens)
def recurrent_gemma() -> nn.Module:
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    config = RecurrentGemmaConfig(
        **sizes, vocab_size=99, lru_width=32, use_cache=False, attention_window_size=4
    )
    return Part(RecurrentGemmaForCausalLM(config), "logits")


@_network("transformers", tokens)
def zamba() -> nn.Module:
    from transformers import Zamba2Config, Zamba2ForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    more = {"mamba_d_state": 4, "mamba_ngroups": 1, "n_mamba_heads": 4, "mamba_headdim": 16, "chunk_size": 4}
    layers = {"layers_block_type": ["mamba", "hybrid", "mamba"], "num_mem_blocks": 1, "use_cache": False}
    return Part(Zamba2ForCausalLM(Zamba2Config(**sizes, **more, **layers, vocab_size=99)), "logits")


@_network("transformers", tokens)
def rwkv() -> nn.Module:
    from transformers import RwkvConfig, RwkvForCausalLM

    sizes = {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    return Part(RwkvForCausalLM(RwkvConfig(**sizes, vocab_size=99, use_cache=False)), "logits")


def _wired() -> Any:
    from ncps.wirings import AutoNCP

    return AutoNCP(20, 3, seed=1)


@_network("ncps", noise(6, 5))
def closed_form_continuous() -> nn.Module:
    from ncps.torch import CfC

    return Part(CfC(5, 24, proj_size=3), 0)


@_network("ncps", noise(6, 5))
def wired_closed_form_continuous() -> nn.Module:
    from ncps.torch import CfC

    return Part(CfC(5, _wired()), 0)


@_network("ncps", noise(6, 5))
def liquid_time_constants() -> nn.Module:
    from ncps.torch import LTC

    return Part(LTC(5, _wired()), 0)


class Spiking(nn.Module):
    """Four steps of a spiking network; the output is the last membrane potential."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        import snntorch

        self.first, self.second, self.head = nn.Linear(5, 24), nn.Linear(24, 24), nn.Linear(24, 3)
        self.one = snntorch.Leaky(beta=0.9, learn_beta=True)
        self.two = snntorch.RLeaky(beta=0.8, linear_features=24) if recurrent else snntorch.Synaptic(0.9, 0.8)
        self.out = snntorch.Leaky(beta=0.9, reset_mechanism="none")

    def forward(self, x: Tensor) -> Tensor:
        states = [layer.reset_mem() for layer in (self.one, self.two, self.out)]
        first, second, last = states[0], list(states[1]), states[2]
        for _ in range(4):
            spikes, first = self.one(self.first(x), first)
            spikes, *second = self.two(self.second(spikes), *second)
            _, last = self.out(self.head(spikes), last)
        return last


@_network("snntorch", noise(5))
def spiking_synapses() -> nn.Module:
    return Spiking(recurrent=False)


@_network("snntorch", noise(5))
def recurrent_spiking() -> nn.Module:
    return Spiking(recurrent=True)


class Spikes(nn.Module):
    """Steps of a network of spikingjelly, averaged."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self.body)
        found = torch.stack([self.body(x) for _ in range(4)]).mean(0)
        functional.reset_net(self.body)
        return found


@_network("spikingjelly", noise(3, 12, 12))
def spiking_convolutions() -> nn.Module:
    from spikingjelly.activation_based import layer, neuron

    body = [layer.Conv2d(3, 16, 3), layer.BatchNorm2d(16), neuron.IFNode(v_threshold=0.3), layer.MaxPool2d(2)]
    body += [
        layer.Conv2d(16, 24, 3),
        neuron.ParametricLIFNode(v_threshold=0.3),
        nn.Flatten(),
        layer.Linear(216, 24),
    ]
    return Spikes(nn.Sequential(*body, neuron.LIFNode(v_threshold=0.3), layer.Linear(24, 3)))
