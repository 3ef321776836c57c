"""Networks that are unusual in one way each, and bad ones, that several tests share."""

from __future__ import annotations

import dataclasses
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.zoo.case import Function

Make = Callable[[], nn.Module]


@dataclasses.dataclass
class Output:
    """A dataclass that PyTorch does not know as a container."""

    logits: Tensor
    hidden: Tensor | None = None


class Record:
    """An object of no known kind."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.name = logits, "record"


def mlp() -> nn.Sequential:
    """4 inputs, one hidden layer of 8, 3 outputs."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def made(run: Callable[..., Any], **more: Any) -> Make:
    """A network of two linear layers a (4, 8) and b (8, 3), and more, as a function."""
    return lambda: Function(run, a=nn.Linear(4, 8), b=nn.Linear(8, 3), **more)


def plain(net: Any, x: Tensor) -> Tensor:
    """b(relu(a(x)))."""
    return net.b(net.a(x).relu())


class Stateful(nn.Module):
    """Counts its calls, keeps what it computed, and writes to its buffers in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.calls, self.cache, self.last = 0, {}, None
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("unsaved", torch.zeros(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x).relu()
        self.calls += 1
        self.cache["hidden"] = self.last = hidden
        self.count += 1
        self.mean.mul_(0.9).add_(0.1 * hidden.detach().mean(0))
        self.unsaved.copy_(hidden.detach().mean(0))
        return self.b(hidden)


class Auxiliary(nn.Module):
    """A head that is used in training mode only, with batch norm and both ways of dropping out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.c = (
            nn.Linear(4, 8),
            nn.BatchNorm1d(8),
            nn.Linear(8, 6),
            nn.Linear(6, 3),
        )
        self.aux = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Any:
        hidden = F.dropout(self.norm(self.a(x)).relu(), 0.5, self.training)
        result = self.c(self.b(hidden).relu())
        if not self.training:
            return result
        depth = torch.empty(len(x), 1).bernoulli_(0.5)
        return result, self.aux(F.dropout1d(hidden[..., None], 0.5)[..., 0]) * depth * torch.rand(5).sum()


def pruned() -> nn.Module:
    """A pruned layer keeps a computed weight, which deepcopy refuses, and a constant mask."""
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), prune.random_unstructured(nn.Linear(8, 3), "weight", 0.2)
    )


def old_weight_norm() -> nn.Module:
    """The deprecated weight norm works by a hook."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3))


def hooked() -> nn.Module:
    """Hooks that change what goes in and comes out."""
    net = mlp()
    net[1].register_forward_hook(lambda module, inputs, output: output * 2)
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    return net


def tied() -> nn.Module:
    """Input and output embedding are one tensor."""
    layers = {"embed": nn.Embedding(10, 8), "inner": nn.Linear(8, 8), "out": nn.Linear(8, 10, bias=False)}
    layers["out"].weight = layers["embed"].weight
    return Function(lambda n, x: n.out(n.inner(n.embed(x)).relu() + n.embed(x)), **layers)


def bert() -> nn.Module:
    """A transformer that takes keywords and returns a ModelOutput."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, **sizes)
    return transformers.BertForSequenceClassification(config)


def features(*shape: int, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """A maker of normal inputs, (5, 4) unless told."""
    return lambda: torch.randn(*(shape or (5, 4))).to(dtype)


def complex_layers() -> nn.Module:
    """Two layers of complex weights."""
    layers = nn.Linear(4, 8, dtype=torch.complex64), nn.Linear(8, 3, dtype=torch.complex64)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1])


def sparse_sum(net: Any, x: Tensor) -> Tensor:
    """Neighbours are summed by a sparse matrix."""
    return net.b(torch.sparse.mm(net.graph, net.a(x).relu()))


ODD: dict[str, tuple[Make, Callable[[], Any]]] = {
    "float16": (lambda: mlp().half(), features(dtype=torch.float16)),
    "bfloat16": (lambda: nn.Sequential(*mlp(), nn.BatchNorm1d(3)).bfloat16(), features(dtype=torch.bfloat16)),
    "float64": (lambda: mlp().double(), features(dtype=torch.float64)),
    "mixed types": (
        lambda: Function(
            lambda n, x: n.b(n.a(x).bfloat16()).float(), a=nn.Linear(4, 8), b=nn.Linear(8, 3).bfloat16()
        ),
        features(),
    ),
    "complex": (complex_layers, features(dtype=torch.complex64)),
    "scalar parameter": (
        made(lambda n, x: plain(n, x) * n.scale, scale=nn.Parameter(torch.tensor(2.0))),
        features(),
    ),
    "empty parameter": (
        made(lambda n, x: plain(n, x) + n.none.sum(), none=nn.Parameter(torch.ones(0, 2))),
        features(),
    ),
    "sparse buffer": (made(sparse_sum, graph=torch.eye(5).to_sparse()), features()),
    "integer buffer": (made(lambda n, x: plain(n, x) * n.by, by=torch.tensor([1, 2, 3])), features()),
    "stateful": (Stateful, features()),
    "pruned": (pruned, features()),
    "old weight norm": (old_weight_norm, features()),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3)),
        features(),
    ),
    "spectral norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3)),
        features(),
    ),
    "hooked": (hooked, features()),
    "tied": (tied, lambda: torch.randint(10, (3, 5))),
    "dictionary out": (made(lambda n, x: {"a": [plain(n, x)], "b": None, "c": "text"}), features()),
    "dataclass out": (made(lambda n, x: Output(plain(n, x))), features()),
    "object out": (made(lambda n, x: (x.sum(), Record(plain(n, x)))), features()),
    "dataclass in": (made(lambda n, o: plain(n, o.logits)), lambda: {"o": Output(torch.ones(5, 4))}),
    "nested in": (
        made(lambda n, d, times, flag=None: plain(n, d["x"][0]) * times),
        lambda: ({"x": [torch.randn(5, 4)]}, 2),
    ),
    "keywords": (
        made(lambda n, *, x, flag=False: plain(n, x)),
        lambda: {"x": torch.randn(5, 4), "flag": True},
    ),
    "inputs written": (made(lambda n, x: plain(n, x.mul_(2))), features()),
    "inputs emptied": (made(lambda n, d: plain(n, d.pop("x"))), lambda: {"d": {"x": torch.randn(5, 4)}}),
    "positive inputs only": (made(lambda n, x: plain(n, x.log())), lambda: torch.rand(5, 4) + 0.1),
    "masked output": (
        made(lambda n, x: plain(n, x).masked_fill(torch.eye(3).bool()[:1], -torch.inf)),
        features(),
    ),
    "auxiliary": (Auxiliary, features()),
    "ModelOutput": (bert, lambda: {"input_ids": torch.randint(20, (2, 6)), "output_hidden_states": True}),
}

RANDOM: dict[str, Make] = {
    "dropout": made(lambda n, x: n.b(F.dropout(n.a(x).relu(), training=True))),
    "noise": made(lambda n, x: plain(n, x) + torch.randn(3)),
    "sampling": made(lambda n, x: torch.multinomial(plain(n, x).softmax(-1), 1)),
    "number of outputs": made(lambda n, x: [plain(n, x)] * int(torch.randint(1, 1000, ()))),
    "python": made(lambda n, x: plain(n, x) + random.random()),
    "numpy": made(lambda n, x: plain(n, x) + np.random.rand()),  # noqa: NPY002
}


class Locked(nn.Sequential):
    """Holds something that cannot be copied."""

    def __init__(self) -> None:
        super().__init__(*mlp())
        self.lock = threading.Lock()


class Building(nn.Module):
    """Makes its second layer in its first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), None

    def forward(self, x: Tensor) -> Tensor:
        if self.b is None:
            self.b = nn.Linear(8, 3)
        return self.b(self.a(x))


def scripted(net: nn.Module) -> nn.Module:
    """A compiled script of a network; scripting is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(net)


UNSUPPORTED: dict[str, tuple[Make, str]] = {
    "data parallel": (lambda: nn.DataParallel(mlp()), r"DataParallel: use its \.module"),
    "script": (lambda: scripted(mlp()), "compiled script"),
    "script inside": (lambda: nn.Sequential(scripted(nn.Linear(4, 8)), nn.Linear(8, 3)), "at '0'"),
    "compiled": (lambda: torch.compile(mlp(), backend="eager"), r"\._orig_mod"),
    "meta": (lambda: mlp().to("meta"), "'0.weight' on the meta device"),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3)),
        "uninitialised .*'0.weight'",
    ),
    "building": (Building, "adds the parameter 'b.weight'"),
    "locked": (Locked, "copy.deepcopy can copy"),
}
