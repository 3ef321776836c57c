"""Several networks in one canonical form, without the groups that some of them cannot be brought to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import SymmetryError, listed
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.symmetry.continuous.canonical import canonicalize
from sinkhorn_rebasin.symmetry.continuous.discovery import verify_continuous
from sinkhorn_rebasin.symmetry.rescaling.discovery import discover_rescaling


class CanonicalForms(NamedTuple):
    """Hold networks in canonical form, and what was left out on the way.

    Attributes:
        networks: of the classes they had, and as many.
        continuous: the symmetries that act on all of them.
        left_out: per group that keeps its permutations, what stood in the way.
    """

    networks: tuple[nn.Module, ...]
    continuous: ContinuousSpec
    left_out: dict[str, str]

    @property
    def note(self) -> str:
        """Say which groups were left out, and why; empty where none was."""
        if not self.left_out:
            return ""
        names = listed(map(repr, self.left_out))
        return f"permutations alone for {names}: {'; '.join(dict.fromkeys(self.left_out.values()))}"


def canonical_forms(
    networks: Sequence[nn.Module],
    spec: PermutationSpec,
    continuous: ContinuousSpec,
    example_inputs: ExampleInputs,
) -> CanonicalForms:
    """Bring networks of one architecture into canonical form; leave out the groups whose gains stay.

    A group is left out for all networks when one of them cannot be folded. What is left is then proven anew, since
    gains that stay are no longer one.

    Args:
        networks: none is changed.
        spec, continuous: the symmetries of all of them.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        ArchitectureError: when a network does not run on the inputs, or not in float64.
        SymmetryError: when a network has no such form and no group is to blame.

    Example:
        >>> import torch
        >>> from sinkhorn_rebasin.symmetry import discover_continuous, discover_symmetry
        >>> net, x = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), torch.randn(5, 3)
        >>> _ = torch.nn.init.zeros_(net[1].weight)
        >>> spec = discover_symmetry(net, x)
        >>> forms = canonical_forms([net], spec, discover_continuous(net, spec, x), x)
        >>> forms.continuous.names, list(forms.left_out)
        ([], ['0'])
    """
    left_out: dict[str, str] = {}
    folds = any(symmetry.gains for symmetry in continuous.symmetries)
    rescaling = discover_rescaling(networks[0], spec, example_inputs, signs=False) if folds else NO_RESCALING
    while continuous:
        try:
            if left_out:
                verify_continuous(networks[0], spec, continuous, example_inputs)
            forms = tuple(
                canonicalize(network, spec, continuous, example_inputs, rescaling=rescaling)
                for network in networks
            )
            return CanonicalForms(forms, continuous, left_out)
        except SymmetryError as error:
            names = [name for name in error.groups if name in continuous]
            if not names:
                raise
            reason = str(error).splitlines()[0]
            left_out |= dict.fromkeys(names, reason)
            continuous = continuous.without(*names, reason=reason)
    return CanonicalForms(tuple(networks), continuous, left_out)
