"""A Llama-like checkpoint with random weights, and a permuted copy of it with noise; both written layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

BILLION = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 32000}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 256}
HEADS, KEY_HEADS = 32, 8
NOISE = 0.05
"""Of the standard deviation of the weights."""


def config(sizes: dict[str, int]) -> dict[str, Any]:
    """Return what transformers reads as ``config.json``."""
    heads = HEADS if sizes["hidden_size"] >= 1024 else 8
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "num_attention_heads": heads,
        "num_key_value_heads": heads // (HEADS // KEY_HEADS),
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        **sizes,
    }


def tensors(sizes: dict[str, int], noise: float) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the weights shard by shard: a shard's number and its tensors, the same at every call."""
    told = config(sizes)
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    keys = width * told["num_key_value_heads"] // told["num_attention_heads"]
    ends = {
        "model.embed_tokens.weight": (sizes["vocab_size"], width),
        "lm_head.weight": (sizes["vocab_size"], width),
    }
    yield (
        0,
        {
            **{name: _drawn(name, shape, noise) for name, shape in ends.items()},
            **_gains("model.norm", width, noise),
        },
    )
    shapes = {
        **{
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
        },
        **{
            "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
        },
        "mlp.down_proj": (width, inner),
    }
    for layer in range(sizes["num_hidden_layers"]):
        start = f"model.layers.{layer}"
        shard = {
            f"{start}.{key}.weight": _drawn(f"{start}.{key}", shape, noise) for key, shape in shapes.items()
        }
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shard |= _gains(f"{start}.{norm}", width, noise)
        yield layer + 1, shard


def permuted(sizes: dict[str, int], shard: dict[str, Tensor]) -> dict[str, Tensor]:
    """Plant a permutation of the stream, of each layer's key heads with their queries, and of its inner units.

    It is written by hand, axis by axis, and shares no code with the package.
    """
    told = config(sizes)
    heads, groups = told["num_attention_heads"], told["num_key_value_heads"]
    stream = _order("stream", sizes["hidden_size"])
    moved = {}
    for name, tensor in shard.items():
        layer = name.split(".")[2] if ".layers." in name else ""
        per_head = sizes["hidden_size"] // heads
        group = _order(f"heads {layer}", groups)
        keys = torch.arange(groups * per_head).reshape(groups, per_head)[group].reshape(-1)
        queries = torch.arange(sizes["hidden_size"]).reshape(groups, -1)[group].reshape(-1)
        inner = _order(f"inner {layer}", sizes["intermediate_size"])
        rows = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "gate_proj": inner, "up_proj": inner}
        columns = {"o_proj": queries, "down_proj": inner}
        kind = name.split(".")[-2]
        if tensor.dim() == 1:
            moved[name] = tensor[stream]
        elif kind in columns:
            moved[name] = tensor[stream][:, columns[kind]]
        else:
            moved[name] = tensor[rows[kind]][:, stream] if kind in rows else tensor[:, stream]
    return moved


def write(folder: Path, sizes: dict[str, int], planted: bool) -> None:
    """Write the reference, or the planted target, as a folder of Hugging Face in shards."""
    folder.mkdir(parents=True)
    where: dict[str, str] = {}
    for number, shard in tensors(sizes, NOISE if planted else 0.0):
        file = f"model-{number:05d}.safetensors"
        content = permuted(sizes, shard) if planted else shard
        save_file(
            {name: tensor.contiguous() for name, tensor in content.items()}, folder / file, {"format": "pt"}
        )
        where |= dict.fromkeys(content, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config(sizes)))


def _drawn(name: str, shape: tuple[int, ...], noise: float) -> Tensor:
    weight = 0.02 * torch.randn(shape, generator=_generator(name))
    if noise:
        weight += 0.02 * noise * torch.randn(shape, generator=_generator(name + " noise"))
    return weight.bfloat16()


def _gains(name: str, width: int, noise: float) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + 10 * _drawn(name, (width,), noise)}


def _order(name: str, size: int) -> Tensor:
    return torch.randperm(size, generator=_generator(name))


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(
        sum(ord(letter) * 31**place % 1000003 for place, letter in enumerate(name))
    )
