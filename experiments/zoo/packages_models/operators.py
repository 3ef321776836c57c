"""Neural operators, implicit and Kolmogorov-Arnold networks: neuraloperator, siren_pytorch, pykan, e3nn."""

from __future__ import annotations

import torch
from torch import nn

from experiments.zoo.packages_models.inputs import noise
from experiments.zoo.packages_models.network import Field

OPERATORS = Field()
_network = OPERATORS.network


@_network("neuraloperator", noise(1, 16, 16))
def fourier_operator() -> nn.Module:
    from neuralop.models import FNO

    return FNO(n_modes=(6, 6), in_channels=1, out_channels=1, hidden_channels=16, n_layers=2)


@_network("neuraloperator", noise(1, 16, 16))
def tensorized_operator() -> nn.Module:
    from neuralop.models import TFNO

    sizes = {"n_modes": (6, 6), "hidden_channels": 16, "n_layers": 2}
    return TFNO(in_channels=1, out_channels=1, **sizes, factorization="tucker", rank=0.3)


@_network("neuraloperator", noise(1, 16, 16))
def u_shaped_operator() -> nn.Module:
    from neuralop.models import UNO

    sizes = {
        "hidden_channels": 16,
        "n_layers": 3,
        "uno_out_channels": [16, 24, 16],
        "uno_n_modes": [[6, 6]] * 3,
    }
    return UNO(
        in_channels=1,
        out_channels=1,
        **sizes,
        channel_mlp_skip="linear",
        uno_scalings=[[1.0, 1.0], [0.5, 0.5], [2, 2]],
    )


@_network("siren-pytorch", noise(2))
def siren() -> nn.Module:
    from siren_pytorch import SirenNet

    return SirenNet(dim_in=2, dim_hidden=48, dim_out=3, num_layers=3)


@_network("siren-pytorch", noise(8))
def modulated_siren() -> nn.Module:
    from siren_pytorch import SirenNet, SirenWrapper

    class Image(nn.Module):
        """An image for each latent."""

        def __init__(self) -> None:
            super().__init__()
            net = SirenNet(dim_in=2, dim_hidden=32, dim_out=3, num_layers=3)
            self.wrapper = SirenWrapper(net, image_width=5, image_height=5, latent_dim=8)

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.wrapper(latent=latent) for latent in latents])

    return Image()


@_network("pykan", noise(4))
def kan() -> nn.Module:
    from kan import KAN

    return KAN(width=[4, 6, 2], grid=4, k=3, auto_save=False, symbolic_enabled=False)


@_network("e3nn", noise(8))
def equivariant() -> nn.Module:
    from e3nn import o3
    from e3nn.nn import Gate

    scalars, vectors = "12x0e", "6x1o"
    gate = Gate(scalars, [torch.relu], "6x0e", [torch.sigmoid], vectors)

    class Network(nn.Module):
        """Scalars and vectors through a linear layer, a gate and a tensor product, to scalars."""

        def __init__(self) -> None:
            super().__init__()
            self.first = o3.Linear("5x0e + 1x1o", gate.irreps_in)
            self.gate = gate
            self.product = o3.FullyConnectedTensorProduct(gate.irreps_out, gate.irreps_out, "8x0e + 4x1o")
            self.last = o3.Linear("8x0e + 4x1o", "3x0e")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.gate(self.first(x))
            found: torch.Tensor = self.last(self.product(hidden, hidden))
            return found

    return Network()
