"""Tables: pytorch_tabnet, rtdl_revisiting_models, rtdl_num_embeddings, tab_transformer_pytorch, tabm, torch_frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.zoo.packages_models.inputs import noise
from experiments.zoo.packages_models.network import Field, Part

TABULAR = Field()
_network = TABULAR.network
KINDS = (5, 3, 7)


def numbers_and_kinds(batch: int) -> tuple[Tensor, Tensor]:
    """Six numbers, and three columns of 5, 3 and 7 kinds."""
    return torch.randn(batch, 6), kinds(batch)


def kinds_and_numbers(batch: int) -> tuple[Tensor, Tensor]:
    return kinds(batch), torch.randn(batch, 6)


def kinds(batch: int) -> Tensor:
    return torch.stack([torch.randint(0, most, (batch,)) for most in KINDS], 1)


@_network("pytorch-tabnet", noise(10))
def tab_net() -> nn.Module:
    from pytorch_tabnet.tab_network import TabNet

    return Part(
        TabNet(10, 3, n_d=16, n_a=16, n_steps=2, virtual_batch_size=8, group_attention_matrix=torch.eye(10)),
        0,
    )


@_network("rtdl_revisiting_models", noise(10))
def mlp() -> nn.Module:
    from rtdl_revisiting_models import MLP

    return MLP(d_in=10, d_out=3, n_blocks=2, d_block=48, dropout=0.1)


@_network("rtdl_revisiting_models", noise(10))
def residual() -> nn.Module:
    from rtdl_revisiting_models import ResNet

    sizes = {"n_blocks": 2, "d_block": 32, "d_hidden": None, "d_hidden_multiplier": 2.0}
    return ResNet(d_in=10, d_out=3, **sizes, dropout1=0.1, dropout2=0.0)


@_network("rtdl_revisiting_models", numbers_and_kinds)
def ft_transformer() -> nn.Module:
    from rtdl_revisiting_models import FTTransformer

    options = FTTransformer.get_default_kwargs()
    options |= {"d_block": 32, "attention_n_heads": 4, "n_blocks": 2}
    return FTTransformer(n_cont_features=6, cat_cardinalities=list(KINDS), d_out=3, **options)


@_network("rtdl_num_embeddings", noise(10))
def periodic_embeddings() -> nn.Module:
    from rtdl_num_embeddings import PeriodicEmbeddings

    body = nn.Sequential(nn.Linear(10 * 8, 32), nn.ReLU(), nn.Linear(32, 3))
    return nn.Sequential(PeriodicEmbeddings(10, 8, n_frequencies=12, lite=False), nn.Flatten(), body)


@_network("rtdl_num_embeddings", noise(10))
def piecewise_linear_embeddings() -> nn.Module:
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings

    bins = [torch.linspace(-2, 2, 6) for _ in range(10)]
    body = nn.Sequential(nn.Linear(10 * 8, 32), nn.ReLU(), nn.Linear(32, 3))
    return nn.Sequential(PiecewiseLinearEmbeddings(bins, 8, activation=True, version="B"), nn.Flatten(), body)


@_network("tab-transformer-pytorch", kinds_and_numbers)
def tab_transformer() -> nn.Module:
    from tab_transformer_pytorch import TabTransformer

    return TabTransformer(
        categories=KINDS, num_continuous=6, dim=32, dim_out=2, depth=2, heads=4, dim_head=8, mlp_act=nn.ReLU()
    )


@_network("tab-transformer-pytorch", kinds_and_numbers)
def lucidrains_ft_transformer() -> nn.Module:
    from tab_transformer_pytorch import FTTransformer

    return FTTransformer(categories=KINDS, num_continuous=6, dim=32, dim_out=2, depth=2, heads=4, dim_head=8)


@_network("tabm", numbers_and_kinds)
def tab_m() -> nn.Module:
    from tabm import TabM

    return TabM.make(n_num_features=6, cat_cardinalities=list(KINDS), d_out=2, n_blocks=2, d_block=32, k=4)


class Frame(nn.Module):
    """A network of torch_frame as a function of numbers and kinds."""

    def __init__(self, kind: str, **settings: object) -> None:
        super().__init__()
        import torch_frame
        from torch_frame.data.stats import StatType

        self.numerical, self.categorical = torch_frame.numerical, torch_frame.categorical
        self.names = {self.numerical: list("abcdef"), self.categorical: list("xyz")}
        numbers = {StatType.MEAN: 0.1, StatType.STD: 1.1, StatType.QUANTILES: [-2.0, -1.0, 0.0, 1.0, 2.0]}
        statistics = dict.fromkeys("abcdef", numbers)
        statistics |= {
            name: {StatType.COUNT: (list(range(most)), [1] * most)}
            for name, most in zip("xyz", KINDS, strict=True)
        }
        from torch_frame.nn import models

        made = getattr(models, kind)
        self.model = made(out_channels=3, col_stats=statistics, col_names_dict=self.names, **settings)

    def forward(self, numbers: Tensor, kinds: Tensor) -> Tensor:
        from torch_frame import TensorFrame

        frame = TensorFrame({self.numerical: numbers, self.categorical: kinds}, self.names)
        found: Tensor = self.model(frame)
        return found


@_network("pytorch-frame", numbers_and_kinds)
def frame_ft_transformer() -> nn.Module:
    return Frame("FTTransformer", channels=16, num_layers=2)


@_network("pytorch-frame", numbers_and_kinds)
def frame_residual() -> nn.Module:
    return Frame("ResNet", channels=16, num_layers=2)


@_network("pytorch-frame", numbers_and_kinds)
def trompt() -> nn.Module:
    return Frame("Trompt", channels=16, num_prompts=8, num_layers=2)
