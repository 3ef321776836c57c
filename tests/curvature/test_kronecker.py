from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import diagonal_fisher, kronecker_fisher
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from tests.curvature.brute_force import fisher_matrix, flat, random_difference
from tests.rebasin.rebasin_problems import NETWORKS, inputs, network


def softmax_regression(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3, bias=bias).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["expected", "observed"])
def test_exact_for_one_layer_and_one_sample(bias: bool, kind: Any) -> None:
    net, x = softmax_regression(bias), torch.randn(1, 4, dtype=torch.float64)
    label = torch.tensor([2])
    fisher = kronecker_fisher(net, [(x, label)], labels=kind)
    exact = fisher_matrix(net, x, 1, label if kind == "observed" else None)
    assert fisher.trace() == pytest.approx(float(exact.trace()))
    for seed in range(5):
        difference = random_difference(net, seed)
        delta = flat(difference, net)
        torch.testing.assert_close(fisher.quadratic(difference), delta @ exact @ delta)


def linear_chain() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6, bias=False), nn.Linear(6, 3)).double()


def test_the_blocks_of_a_linear_network_with_one_sample_are_exact() -> None:
    # One sample: within a layer the input is fixed, so that its block is a Kronecker product for any labels.
    net, x = linear_chain(), torch.randn(1, 4, dtype=torch.float64)
    fisher, exact = kronecker_fisher(net, [x], labels="expected"), fisher_matrix(net, x, 1)
    start = 0
    for name in ("0", "1", "2"):
        size = sum(p.numel() for p in net[int(name)].parameters())
        block = exact[start : start + size, start : start + size]
        difference = random_difference(net)
        delta = flat(difference, net)[start : start + size]
        torch.testing.assert_close(fisher.layers[name].quadratic(difference), delta @ block @ delta)
        start += size


def test_the_factors_of_many_samples_are_means_of_outer_products() -> None:
    net, x = linear_chain(), torch.randn(7, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    batches = [(x[:3], labels[:3]), (x[3:], labels[3:])]
    found = kronecker_fisher(net, batches, labels="observed").layers["1"]
    ins, outs = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
    for n in range(7):
        a = net[0](x[n]).detach()
        h = net[1](a).detach().requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(net[2](h)[None], labels[n : n + 1]), h)
        ins, outs = ins + torch.outer(a, a) / 7, outs + torch.outer(g, g) / 7
    torch.testing.assert_close(found.inputs[0], ins)
    torch.testing.assert_close(found.outputs[0], outs)
    assert (found.weight, found.bias, found.weight_shape) == ("1.weight", None, (6, 5))


def windows(x: Tensor, layer: Any) -> Tensor:
    """What each output of a convolution sees, (samples, groups, positions, inputs), by weights with a single one."""
    channels, size = layer.in_channels, torch.Size(layer.kernel_size).numel()
    per = channels // layer.groups * size
    found = []
    for group in range(layer.groups):
        for number in range(per):
            weight = torch.zeros_like(layer.weight)
            weight.view(layer.out_channels, -1)[group * (layer.out_channels // layer.groups), number] = 1
            out = torch.func.functional_call(layer, {"weight": weight}, (x,))
            if layer.bias is not None:
                out = out - layer.bias.reshape(1, -1, *[1] * len(layer.kernel_size))
            found.append(out[:, group * (layer.out_channels // layer.groups)].flatten(1))
    return torch.stack(found, 1).reshape(len(x), layer.groups, per, -1).transpose(2, 3).detach()


CONVOLUTIONS = {
    "1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1), (2, 7)),
    "2d": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)), (3, 6, 5)),
    "groups": (lambda: nn.Conv2d(4, 6, 2, groups=2, bias=False), (4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding="same", padding_mode="circular"), (4, 4, 4)),
    "3d": (lambda: nn.Conv3d(2, 3, 2, padding=1, padding_mode="replicate"), (2, 3, 3, 3)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_factors_of_convolutions(kind: str) -> None:
    torch.manual_seed(4)
    make, shape = CONVOLUTIONS[kind]
    layer, x = make().double(), torch.randn(3, *shape, dtype=torch.float64)
    head = nn.Linear(layer(x).flatten(1).shape[1], 3).double()
    net, labels = nn.Sequential(layer, nn.ReLU(inplace=True), nn.Flatten(), head), torch.tensor([0, 2, 1])
    found = kronecker_fisher(net, [(x, labels)], labels="observed").layers["0"]
    seen = windows(x, layer)
    if layer.bias is not None:
        seen = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)
    positions = seen.shape[0] * seen.shape[2]
    torch.testing.assert_close(found.inputs, torch.einsum("ngpi,ngpj->gij", seen, seen) / positions)
    out = layer(x).detach().requires_grad_()
    losses = F.cross_entropy(head(out.relu().flatten(1)), labels, reduction="sum")
    (g,) = torch.autograd.grad(losses, out)
    g = g.reshape(3, layer.groups, layer.out_channels // layer.groups, -1)
    torch.testing.assert_close(found.outputs, torch.einsum("ngip,ngjp->gij", g, g) / 3)
    # The factors and the weight agree in the order of channels and kernel.
    difference = random_difference(layer)
    if layer.bias is None:
        moved = F.conv2d(x, difference["weight"], groups=layer.groups)
    else:
        moved = torch.func.functional_call(layer, difference, (x,))
    rows = moved.reshape(3, layer.groups, layer.out_channels // layer.groups, -1)
    second = torch.einsum("ngip,ngjp->gij", rows, rows) / positions
    expected = (second * found.outputs).sum()
    named = {f"0.{key}": value for key, value in difference.items()}
    torch.testing.assert_close(found.quadratic(named), expected)


def test_a_linear_layer_over_a_sequence_takes_its_places_as_positions() -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(20, 2)).double()
    x = torch.randn(6, 5, 3, dtype=torch.float64)
    found = kronecker_fisher(net, [x], labels="expected").layers["0"]
    rows = torch.cat([x, torch.ones_like(x[..., :1])], -1).reshape(30, 4)
    torch.testing.assert_close(found.inputs[0], rows.T @ rows / 30)
    exact = torch.zeros(4, 4, dtype=torch.float64)
    for n in range(6):
        out = net[0](x[n : n + 1]).detach().requires_grad_()
        logits = net[3](out.tanh().flatten(1))
        for label, p in enumerate(logits.detach().softmax(1)[0]):
            (g,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([label])), out, retain_graph=True)
            exact += p * g[0].T @ g[0] / 6
    torch.testing.assert_close(found.outputs[0], exact)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_a_layer_or_on_the_diagonal(name: str) -> None:
    net, given = network(name, 1).eval(), inputs(name)
    fisher = kronecker_fisher(net, [(given, None)], labels="expected")
    in_layers = {n for layer in fisher.layers.values() for n in (layer.weight, layer.bias) if n is not None}
    assert in_layers | fisher.diagonal.keys() == {n for n, _ in net.named_parameters()}
    assert not in_layers & fisher.diagonal.keys()
    alone = diagonal_fisher(net, [(given, None)], labels="expected").diagonal
    for key, value in fisher.diagonal.items():
        torch.testing.assert_close(value, alone[key])
    if name == "residual":
        assert set(fisher.diagonal) == {f"{n}.{p}" for n in ("norm", "inner") for p in ("weight", "bias")}
    if name == "tied":
        assert set(fisher.diagonal) == {"second.weight", "second.bias", "third.bias"}


def test_gradients_are_those_before_an_operation_in_place() -> None:
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(5, 4)
    twin = nn.Sequential(net[0], nn.ReLU(inplace=True), net[2])
    plain, written = (kronecker_fisher(n, [x], labels="expected").layers["0"].outputs for n in (net, twin))
    assert torch.equal(plain, written)


def test_a_layer_that_does_not_run_is_on_the_diagonal_and_zero() -> None:
    net = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = net

        def forward(self, x: Tensor) -> Tensor:
            return self.parts["used"](x)

    fisher = kronecker_fisher(Half(), [torch.randn(4, 3)], labels="expected")
    assert list(fisher.layers) == ["parts.used"]
    assert float(fisher.diagonal["parts.idle.weight"].abs().sum()) == 0


def test_layers_computed_or_run_otherwise_are_left_to_the_diagonal() -> None:
    torch.manual_seed(6)
    net = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)),
        nn.TransformerEncoderLayer(5, 1, 7),
        nn.Linear(5, 2),
    )
    fisher = kronecker_fisher(net, [torch.randn(3, 6, 4).mean(1)], labels="expected", chunk_size=1)
    assert set(fisher.layers) == {"1.linear1", "1.linear2", "2"}
    assert "1.self_attn.out_proj.weight" in fisher.diagonal


def test_nothing_that_is_passed_in_changes() -> None:
    net, given = network("residual", 1).train(), inputs("residual")
    net.head.weight.requires_grad_(False)
    before, kept, rng = copy.deepcopy(net.state_dict()), given.clone(), torch.get_rng_state()
    with torch.inference_mode():
        fisher = kronecker_fisher(net, [given])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(given, kept)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert not net.head.weight.requires_grad
    assert "head" in fisher.layers
    assert float(fisher.layers["head"].outputs.sum().abs()) >= 0
    factors = [f for layer in fisher.layers.values() for f in (layer.inputs, layer.outputs)]
    assert not any(f.requires_grad for f in [*factors, *fisher.diagonal.values()])


def test_moved_to_another_type() -> None:
    net, given = network("residual", 1).eval(), inputs("residual")
    fisher = kronecker_fisher(net, [given])
    wide = fisher.to(dtype=torch.float64)
    assert wide.layers["stem"].inputs.dtype == wide.diagonal["norm.weight"].dtype == torch.float64
    assert wide.trace() == pytest.approx(fisher.trace(), rel=1e-5)
    difference = random_difference(net)
    assert float(wide.quadratic(difference)) == pytest.approx(float(fisher.quadratic(difference)), rel=1e-4)


def test_errors() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(DataError, match="at least one sample"):
        kronecker_fisher(net, [])
    with pytest.raises(DataError, match="at least one sample"):
        kronecker_fisher(net, [torch.ones(0, 3)])
    fisher = kronecker_fisher(net, [torch.ones(2, 3)])
    with pytest.raises(ArchitectureError, match="'bias'"):
        fisher.quadratic({"weight": torch.ones(2, 3)})
    with pytest.raises(ArchitectureError, match="shape"):
        fisher.quadratic({"weight": torch.ones(3, 3), "bias": torch.ones(2)})


def test_against_curvlinops() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    torch.manual_seed(8)
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.Tanh(), nn.Flatten()),
        *(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)),
    ).double()
    x, labels = torch.randn(6, 2, 6, 6, dtype=torch.float64), torch.randint(3, (6,))
    data, parameters = [(x[:4], labels[:4]), (x[4:], labels[4:])], list(net.parameters())
    for ours, theirs in (("expected", "type-2"), ("observed", "empirical")):
        operator = curvlinops.KFACLinearOperator(
            *(net, nn.CrossEntropyLoss(), parameters, data),
            fisher_type=theirs,
            separate_weight_and_bias=False,
            check_deterministic=False,
        )
        difference = random_difference(net)
        product = operator @ list(difference.values())
        expected = sum((d * p).sum() for d, p in zip(difference.values(), product, strict=True))
        found = kronecker_fisher(net, data, labels=ours).quadratic(difference)
        torch.testing.assert_close(found, expected.detach())


def test_a_hook_of_a_layer_counts_as_a_layer_behind_it() -> None:
    class Tripled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * x

    net, x = linear_chain(), torch.randn(6, 4, dtype=torch.float64)
    plain = nn.Sequential(net[0], Tripled(), net[1], net[2])
    hooked = copy.deepcopy(net)
    hooked[0].register_forward_hook(lambda _, __, output: 3 * output)
    expected, found = (kronecker_fisher(one, [x], labels="expected") for one in (plain, hooked))
    for name, twin in (("0", "0"), ("1", "2"), ("2", "3")):
        torch.testing.assert_close(found.layers[name].outputs, expected.layers[twin].outputs)
        torch.testing.assert_close(found.layers[name].inputs, expected.layers[twin].inputs)


def test_a_weight_that_is_read_outside_of_its_layer_gets_the_diagonal() -> None:
    class Rereading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.linear(self.first(x).tanh(), self.first.weight))

    torch.manual_seed(0)
    net, x = Rereading().double(), torch.randn(6, 4, dtype=torch.float64)
    found, diagonal = (
        kronecker_fisher(net, [x], labels="expected"),
        diagonal_fisher(net, [x], labels="expected"),
    )
    assert set(found.layers) == {"last"}
    for name in ("first.weight", "first.bias"):
        torch.testing.assert_close(found.diagonal[name], diagonal.diagonal[name])
