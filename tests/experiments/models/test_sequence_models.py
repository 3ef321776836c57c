"""Transformers, recurrent and grouped networks of the experiments, against the layers torch itself has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from experiments.models import Architecture, build_model
from experiments.models.resnet import ResNet
from experiments.models.transformer import GPT, Attention, TransformerBlock


def _tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_torchs_own_encoder_layer(causal: bool) -> None:
    torch.manual_seed(0)
    ours = TransformerBlock(16, 4, 24, causal).eval()
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    names = {
        "attention.qkv.weight": "self_attn.in_proj_weight",
        "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.out": "self_attn.out_proj",
        "up": "linear1",
        "down": "linear2",
    }
    state = {}
    for name, tensor in ours.state_dict().items():
        start = next((one for one in names if name.startswith(one)), "")
        state[names.get(start, "") + name[len(start) :]] = tensor
    theirs.load_state_dict(state)
    tokens = _tokens(3, 5, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    torch.testing.assert_close(ours(tokens), theirs(tokens, src_mask=mask), atol=1e-5, rtol=1e-5)


def test_the_language_models_look_back_only() -> None:
    for name, arguments in (("gpt", {"context": 8, "width": 16, "heads": 2}), ("lstm", {"width": 16})):
        torch.manual_seed(0)
        model = build_model(name, vocabulary=9, **arguments)
        tokens = torch.randint(9, (2, 8))
        changed = tokens.clone()
        changed[:, 5] = (changed[:, 5] + 1) % 9
        before, after = model(tokens), model(changed)
        assert before.shape == (2, 9, 8)
        torch.testing.assert_close(before[..., :5], after[..., :5])
        assert not torch.allclose(before[..., 5:], after[..., 5:])


def test_the_embedding_is_the_head() -> None:
    model = GPT(vocabulary=9, context=8, width=16, depth=2, heads=2)
    count = 9 * 16 + 8 * 16 + 2 * (4 * 16 * 16 + 4 * 16 + 2 * 64 * 16 + 64 + 16 + 4 * 16) + 2 * 16
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.copy_(model.words.weight[3])
        assert torch.allclose(
            model(torch.zeros(1, 4, dtype=torch.long))[0, :, 0], model.words.weight @ model.words.weight[3]
        )


def test_a_vision_transformer_knows_where_a_patch_is() -> None:
    torch.manual_seed(0)
    model = build_model("vit", size=8, patch=4, width=16, depth=1, heads=2)
    images = _tokens(2, 3, 8, 8)
    rolled = images.roll(4, dims=3)
    assert not torch.allclose(model(images), model(rolled), atol=1e-4)
    with torch.no_grad():
        model.positions.zero_()
    torch.testing.assert_close(model(images), model(rolled), atol=1e-5, rtol=1e-5)


def test_groups_of_a_resnext_see_their_own_channels() -> None:
    block = build_model("resnext", groups=4, width=2, depths=[1]).layer1[0]
    images = _tokens(1, 8, 4, 4)
    changed = images.clone()
    changed[:, :2] += 1
    different = (block.conv2(images) != block.conv2(changed)).any(dim=(0, 2, 3))
    assert different.tolist() == [True] * 2 + [False] * 6


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        Attention(16, 3)
    with pytest.raises(ValueError, match="at most 4 tokens but got 5"):
        GPT(vocabulary=9, context=4, width=8, heads=2)(torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="bottleneck"):
        ResNet([1], [8], groups=2)


def test_examples_are_tokens_where_there_is_a_vocabulary() -> None:
    words = Architecture("lstm", (2, 5), {"vocabulary": 7}).example()
    assert words.shape == (2, 5)
    assert words.dtype == torch.long
    assert int(words.max()) < 7
    assert Architecture("mlp", (2, 5), {}).example().is_floating_point()
