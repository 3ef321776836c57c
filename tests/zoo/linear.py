"""Networks of linear layers: stacked, shared, tied, skipped, fed in several ways."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise, slots
from tests.zoo.operations_on_units import HIDDEN


def tied_decoder(net: Function, x: Tensor) -> Tensor:
    return F.linear(torch.tanh(net.encoder(x)), net.encoder.weight.t())


def tied_layers() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh())
    net[4].weight = net[2].weight
    return net.append(nn.Linear(5, 2))


CASES = [
    Case(
        "mlp_relu",
        lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)),
        noise(6, 3),
        ((5, 1), (4, 1)),
        (slots("0.weight 0", "0.bias 0", "2.weight 1"), slots("2.weight 0", "2.bias 0", "4.weight 1")),
        "output of the network",
    ),
    Case(
        "mlp_tanh_without_bias",
        lambda: nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 2, bias=False)),
        noise(6, 3),
        ((5, 1),),
        (slots("0.weight 0", "2.weight 1"),),
    ),
    Case(
        "mlp_layer_norm",
        lambda: nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)),
        noise(6, 3),
        ((6, 1),),
        (slots("0.weight 0", "0.bias 0", "1.weight 0", "1.bias 0", "3.weight 1"),),
    ),
    Case(
        "mlp_batch_norm",
        lambda: nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)),
        noise(6, 3),
        ((5, 1),),
        (
            slots(
                *("0.weight 0", "0.bias 0", "1.weight 0", "1.bias 0", "3.weight 1"),
                *("1.running_mean 0", "1.running_var 0"),
            ),
        ),
    ),
    Case(
        "batch_norm_first",
        lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
        noise(6, 3),
        ((5, 1),),
    ),
    Case(
        "mlp_dropout",
        lambda: nn.Sequential(
            nn.Linear(3, 5), nn.Dropout(0.5), nn.SiLU(), nn.AlphaDropout(), nn.Linear(5, 2)
        ),
        noise(6, 3),
        ((5, 1),),
    ),
    Case(
        "mlp_prelu",
        lambda: nn.Sequential(nn.Linear(3, 5), nn.PReLU(5), nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 2)),
        noise(6, 3),
        ((5, 1), (4, 1)),
        (
            slots("0.weight 0", "0.bias 0", "1.weight 0", "2.weight 1"),
            slots("2.weight 0", "2.bias 0", "4.weight 1"),
        ),
    ),
    Case(
        "sequence_mlp",
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Softplus(), nn.Linear(5, 2)),
        noise(2, 4, 3),
        ((5, 1),),
    ),
    Case(
        "residual_mlp",
        lambda: Function(
            lambda net, x: net.c((h := torch.relu(net.a(x))) + torch.tanh(net.b(h))),
            a=nn.Linear(3, 5),
            b=nn.Linear(5, 5),
            c=nn.Linear(5, 2),
        ),
        noise(6, 3),
        ((5, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 0", "b.weight 1", "b.bias 0", "c.weight 1"),),
    ),
    Case(
        "shared_layer",
        lambda: Function(
            lambda net, x: net.c(torch.tanh(net.b(torch.tanh(net.b(torch.tanh(net.a(x))))))),
            a=nn.Linear(3, 5),
            b=nn.Linear(5, 5),
            c=nn.Linear(5, 2),
        ),
        noise(6, 3),
        ((5, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 0", "b.weight 1", "b.bias 0", "c.weight 1"),),
    ),
    Case(
        "tied_layers",
        tied_layers,
        noise(6, 3),
        ((5, 1),),
        (
            slots(
                *("0.weight 0", "0.bias 0", "2.weight 0", "2.weight 1", "2.bias 0"),
                *("4.weight 0", "4.weight 1", "4.bias 0", "6.weight 1"),
            ),
        ),
    ),
    Case(
        "tied_decoder",
        lambda: Function(tied_decoder, encoder=nn.Linear(3, 5)),
        noise(6, 3),
        ((5, 1),),
        (slots("encoder.weight 0", "encoder.bias 0"),),
    ),
    Case(
        "unused_layer",
        lambda: Function(
            lambda net, x: net.b(net.a(x).relu()), a=nn.Linear(3, 5), b=nn.Linear(5, 2), c=nn.Linear(4, 4)
        ),
        noise(6, 3),
        ((5, 1),),
        (HIDDEN,),
        "no operation used the tensor",
    ),
    Case(
        "skip_from_the_input_concatenated",
        lambda: Function(
            lambda net, x: net.b(torch.cat([x, net.a(x).relu()], 1)), a=nn.Linear(3, 5), b=nn.Linear(8, 2)
        ),
        noise(6, 3),
        ((5, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 1"),),
    ),
    Case(
        "skip_from_the_input_added",
        lambda: Function(lambda net, x: net.b(x + net.a(x).relu()), a=nn.Linear(5, 5), b=nn.Linear(5, 2)),
        noise(6, 5),
        (),
        (),
        "input",
    ),
    Case(
        "inputs_as_a_tuple",
        lambda: Function(
            lambda net, x, y: net.c(torch.relu(net.a(x) + net.b(y))),
            a=nn.Linear(3, 5),
            b=nn.Linear(4, 5),
            c=nn.Linear(5, 2),
        ),
        lambda: (torch.randn(6, 3), torch.randn(6, 4)),
        ((5, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 0", "b.bias 0", "c.weight 1"),),
    ),
    Case(
        "inputs_as_a_dict",
        lambda: Function(
            lambda net, x, scale: {"out": net.b(torch.relu(net.a(x)) * scale)},
            a=nn.Linear(3, 5),
            b=nn.Linear(5, 2),
        ),
        lambda: {"x": torch.randn(6, 3), "scale": torch.randn(6, 1)},
        ((5, 1),),
        (HIDDEN,),
    ),
    Case(
        "embedding_of_words",
        lambda: nn.Sequential(nn.Embedding(7, 5), nn.Tanh(), nn.Linear(5, 2)),
        lambda: torch.randint(7, (4, 3)),
        None,
    ),
    Case("frozen_hidden_layer_is_the_output", lambda: nn.Linear(3, 5), noise(6, 3), (), ()),
]
