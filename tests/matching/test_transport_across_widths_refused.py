"""Networks whose weights cannot be carried to another width: what is refused, and by what name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.matching import ot_fusion_across_widths
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matching.networks_of_any_width import double_network, mlp
from tests.planted import planted_case


def refused(reference: nn.Module, target: nn.Module, inputs: Tensor, other: Tensor | None = None) -> None:
    other = inputs if other is None else other
    ot_fusion_across_widths(
        reference, target, discover_symmetry(reference, inputs), discover_symmetry(target, other)
    )


def test_more_layers_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="same groups but only one of them has"):
        refused(mlp(3, 4, 2), mlp(3, 4, 4, 2), torch.randn(2, 3))


def test_other_inputs_are_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"'0.weight' .* shapes \(4, 3\) and \(6, 5\)"):
        refused(mlp(3, 4, 2), mlp(5, 6, 2), torch.randn(2, 3), torch.randn(2, 5))


def test_other_pictures_are_refused() -> None:
    nets = [
        nn.Sequential(nn.Conv2d(1, n, 3), nn.Flatten(), nn.Linear(n * side**2, 2))
        for n, side in ((4, 2), (6, 3))
    ]
    with pytest.raises(ArchitectureError, match="4 and 9: are their inputs of one size"):
        refused(*nets, torch.randn(1, 1, 4, 4), torch.randn(1, 1, 5, 5))


def test_another_tensor_is_refused() -> None:
    target = mlp(3, 6, 2)
    target.register_buffer("extra", torch.zeros(1))
    with pytest.raises(ArchitectureError, match=r"same tensors .*extra"):
        refused(mlp(3, 4, 2), target, torch.randn(2, 3))


def test_a_dropped_group_must_keep_its_width() -> None:
    nets, x = (mlp(3, 4, 5, 2), mlp(3, 6, 7, 2)), torch.randn(2, 3)
    specs = [discover_symmetry(net, x).without("2") for net in nets]
    with pytest.raises(ArchitectureError, match=r"'2.weight' to differ"):
        ot_fusion_across_widths(*nets, *specs)


def test_nested_groups_are_refused_by_name() -> None:
    problem = planted_case("grouped")
    nested = next(group for group in problem.spec.groups if group.parent is not None)
    for spec in (problem.spec, problem.spec.without(str(nested.parent))):
        with pytest.raises(SpecError, match="for ot_fusion_across_widths but got"):
            ot_fusion_across_widths(problem.reference, problem.target, spec, spec)


def test_a_state_with_transposed_layers_is_not_guessed() -> None:
    nets = [double_network("transposed", width) for width in (4, 6)]
    states = [tensors_of(net) for net, _, _ in nets]
    with pytest.raises(ArchitectureError, match=r"group '2', .* transposed="):
        ot_fusion_across_widths(*states, *(spec for _, _, spec in nets))
    with pytest.raises(ArchitectureError, match=r"name tensors .* \['typo'\]"):
        ot_fusion_across_widths(*states, *(spec for _, _, spec in nets), transposed=["typo"])


def test_an_embedding_tied_to_the_output_is_refused_where_its_width_differs() -> None:
    def tied(width: int, inner: int) -> nn.Module:
        net = nn.Sequential(
            nn.Embedding(9, width),
            nn.Linear(width, inner),
            nn.Linear(inner, width),
            nn.Linear(width, 9, False),
        )
        net[3].weight = net[0].weight
        return net

    with pytest.raises(ArchitectureError, match=r"0.weight.*3.weight.*its widths cannot change"):
        refused(tied(4, 5), tied(6, 5), torch.arange(9))
    reference, target = tied(4, 5), tied(4, 7)
    specs = [discover_symmetry(net, torch.arange(9)) for net in (reference, target)]
    found = ot_fusion_across_widths(reference, target, *specs)
    assert torch.equal(found["0.weight"], found["3.weight"])


def test_a_spec_of_another_network_is_refused() -> None:
    nets, x = (mlp(3, 4, 2), mlp(3, 6, 2)), torch.randn(2, 3)
    spec = discover_symmetry(nets[0], x)
    with pytest.raises(SpecError, match=r"\(4, 3\) but got \(6, 3\)"):
        ot_fusion_across_widths(*nets, spec, spec)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.parametrize("layer", [nn.Linear, lambda *widths: nn.ConvTranspose1d(*widths, 2)])
def test_weight_norm_is_refused_where_the_width_differs(
    norm: Callable[[nn.Module], nn.Module], layer: Callable[[int, int], nn.Module]
) -> None:
    def normed(width: int) -> nn.Module:
        return nn.Sequential(norm(layer(3, width)), nn.ReLU(), norm(layer(width, 2)))

    inputs = torch.randn(2, 3) if layer is nn.Linear else torch.randn(2, 3, 4)
    with pytest.raises(ArchitectureError, match=r"group '0' differs but got .* remove the parametrisation"):
        refused(normed(4), normed(8), inputs)
    reference, target = normed(4), normed(4)
    found = ot_fusion_across_widths(
        reference, target, *(discover_symmetry(net, inputs) for net in (reference, target))
    )
    target_outputs = target(inputs)
    target.load_state_dict(found)
    assert torch.allclose(target(inputs), target_outputs, atol=1e-6)
