"""Normalizing flows as log-probabilities: nflows, normflows, zuko."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.zoo.packages_models.inputs import noise
from experiments.zoo.packages_models.network import Field, Method

FLOWS = Field()
_network = FLOWS.network
D = 4


class LogProbability(nn.Module):
    """A flow of zuko as the log-probability of a sample, with or without a context."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        found: Tensor = self.flow(context).log_prob(x)
        return found


def with_context(batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, D), torch.randn(batch, 3)


def _nflow(*transforms: Any) -> nn.Module:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform

    return Method(Flow(CompositeTransform(list(transforms)), StandardNormal([D])), "log_prob")


@_network("nflows", noise(D))
def autoregressive() -> nn.Module:
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.permutations import ReversePermutation

    return _nflow(
        MaskedAffineAutoregressiveTransform(D, 64),
        ReversePermutation(D),
        MaskedAffineAutoregressiveTransform(D, 64, use_residual_blocks=False),
    )


@_network("nflows", noise(D))
def spline_coupling() -> nn.Module:
    from nflows.nn.nets import ResidualNet
    from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform
    from nflows.transforms.lu import LULinear

    def coupling(mask: list[int]) -> Any:
        def net(inputs: int, outputs: int) -> nn.Module:
            return ResidualNet(inputs, outputs, hidden_features=64, num_blocks=1)

        return PiecewiseRationalQuadraticCouplingTransform(
            torch.tensor(mask), net, num_bins=4, tails="linear", tail_bound=3.0
        )

    return _nflow(coupling([1, 0, 1, 0]), LULinear(D), coupling([0, 1, 0, 1]))


@_network("nflows", noise(D))
def glow_coupling() -> nn.Module:
    from nflows.nn.nets import ResidualNet
    from nflows.transforms.coupling import AffineCouplingTransform
    from nflows.transforms.normalization import ActNorm

    def coupling(mask: list[int]) -> Any:
        def net(inputs: int, outputs: int) -> nn.Module:
            return ResidualNet(inputs, outputs, hidden_features=64, num_blocks=1, use_batch_norm=True)

        return AffineCouplingTransform(torch.tensor(mask), net)

    return _nflow(ActNorm(D), coupling([1, 0, 1, 0]), ActNorm(D), coupling([0, 1, 0, 1]))


def _normalizing(flows: list[Any]) -> nn.Module:
    import normflows

    return Method(normflows.NormalizingFlow(normflows.distributions.DiagGaussian(D), flows), "log_prob")


@_network("normflows", noise(D))
def real_nvp() -> nn.Module:
    import normflows

    flows: list[Any] = []
    for _ in range(2):
        flows.append(
            normflows.flows.AffineCouplingBlock(normflows.nets.MLP([2, 32, 32, 4], init_zeros=False))
        )
        flows.append(normflows.flows.Permute(D, mode="swap"))
    return _normalizing(flows)


@_network("normflows", noise(D))
def autoregressive_splines() -> nn.Module:
    import normflows

    flows: list[Any] = []
    for _ in range(2):
        flows.append(normflows.flows.AutoregressiveRationalQuadraticSpline(D, 1, 64, num_bins=4))
        flows.append(normflows.flows.LULinearPermute(D))
    return _normalizing(flows)


@_network("normflows", noise(D))
def residual_flow() -> nn.Module:
    import normflows

    flows: list[Any] = []
    for _ in range(2):
        net = normflows.nets.LipschitzMLP([D, 32, 32, D], init_zeros=False, lipschitz_const=0.9)
        flows.append(normflows.flows.Residual(net, reduce_memory=False, exact_trace=True, brute_force=False))
    return _normalizing(flows)


@_network("zuko", with_context)
def masked_autoregressive() -> nn.Module:
    from zuko.flows import MAF

    return LogProbability(MAF(D, 3, transforms=2, hidden_features=(64, 64)))


@_network("zuko", with_context)
def neural_splines() -> nn.Module:
    from zuko.flows import NSF

    return LogProbability(NSF(D, 3, bins=4, transforms=2, hidden_features=(64, 64)))


@_network("zuko", with_context)
def nice() -> nn.Module:
    from zuko.flows import NICE

    return LogProbability(NICE(D, 3, transforms=2, hidden_features=(64, 64)))


@_network("zuko", noise(D))
def sum_of_squares() -> nn.Module:
    from zuko.flows import SOSPF

    return LogProbability(SOSPF(D, transforms=2, hidden_features=(64, 64)))


@_network("zuko", noise(D))
def bernstein() -> nn.Module:
    from zuko.flows import BPF

    return LogProbability(BPF(D, degree=5, transforms=1, hidden_features=(64, 64)))


@_network("zuko", with_context)
def neural_autoregressive() -> nn.Module:
    from zuko.flows import NAF

    network = {"hidden_features": (16, 16)}
    return LogProbability(NAF(D, 3, transforms=1, signal=4, network=network, hidden_features=(64, 64)))


@_network("zuko", noise(D))
def continuous() -> nn.Module:
    from zuko.flows import CNF

    return LogProbability(CNF(D, freqs=2, hidden_features=(32,), exact=True))
