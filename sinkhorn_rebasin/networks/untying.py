"""Tied tensors given memory of their own, on request."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.copying import Module, plain_tensors, standalone_copy


@plain_tensors()
def untie(model: Module, names: Sequence[str] | None = None) -> Module:
    """Copy a network and give tied parameters a tensor each.

    The copy computes the same, has more parameters, and has symmetries of its own: discover them anew.

    Args:
        model: the network; it is not changed.
        names: the names that get a tensor of their own; None for all but the first of each tie.

    Note:
        - A layer that is used twice stays one layer.
        - A weight that a forward borrows from another layer, as in ``F.linear(x, self.words.weight)``, has no name
          of its own and cannot be untied; :func:`expand` the norm before it.
        - ``tie_weights()`` of a Hugging Face model ties it again; set ``tie_word_embeddings`` to False in its
          configuration before saving it.

    Raises:
        ArchitectureError: when there is nothing of this name to untie.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> net[1].weight = net[0].weight
        >>> twin = untie(net)
        >>> twin[1].weight is twin[0].weight, torch.equal(twin[1].weight, net[1].weight)
        (False, True)
    """
    twin = standalone_copy(model)
    again = _again_under(twin)
    for name in names if names is not None else again:
        if name not in again:
            raise ArchitectureError(
                f"Expected the name of a tied parameter, to give it a tensor of its own, but got {name!r}; there are "
                f"{again or 'none'}."
            )
        path, _, attribute = name.rpartition(".")
        parameter = twin.get_parameter(name)
        own = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        setattr(twin.get_submodule(path), attribute, own)
    if not again:
        raise ArchitectureError(
            f"Expected a parameter under two names but {type(model).__name__} has none. A weight that the forward "
            f"borrows from another layer has no name of its own: give it a layer of its own in the class, or the "
            f"norm before it a matrix with expand(model, gains, inputs)."
        )
    return twin


def _again_under(model: nn.Module) -> list[str]:
    """The later names of tied parameters that an attribute of another module holds."""
    names = []
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for tied in tied_names(model):
        holders: set[tuple[int, str]] = set()
        for name in tied:
            path, _, attribute = name.rpartition(".")
            holder = (id(model.get_submodule(path)), attribute)
            if holders and holder not in holders and name in parameters:
                names.append(name)
            holders.add(holder)
    return names
