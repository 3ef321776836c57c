"""One trunk with several heads: a plain network that answers for each label set by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import copied, standalone_copy


class SeparateHeads(nn.Module):
    r"""Run one trunk with several heads.

    There is a head for each label set.

    .. math:: x \mapsto \bigl(h_m(g(x))\bigr)_m

    with a trunk g and heads :math:`h_m`. The trunk runs once where its only head gives the network's output, and
    once a head otherwise. It is trained, saved and loaded as any module.

    Args:
        networks: at least two, by the names of their label sets; none is changed. The trunk is the first one's.
        apart: names of tensors or modules that each network keeps for itself.

    Attributes:
        network: the first network, with a :class:`HeadChoice` in the place of each head.

    Returns:
        Of a call: the outputs by name. ``alone(name)`` is a plain network of one label set.

    Raises:
        ArchitectureError: fewer than two networks; tensors kept apart that are no modules of their own; a trunk that
            differs in a name or shape, which is named.

    Example:
        >>> import torch
        >>> trunk = nn.Linear(4, 8)
        >>> digits, letters = (nn.Sequential(trunk, nn.ReLU(), nn.Linear(8, n)) for n in (10, 26))
        >>> both = SeparateHeads({"digits": digits, "letters": letters}, apart=["2"])
        >>> {name: tuple(output.shape) for name, output in both(torch.ones(3, 4)).items()}
        {'digits': (3, 10), 'letters': (3, 26)}
        >>> both.alone("letters")
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=26, bias=True)
        )
    """

    def __init__(self, networks: Mapping[str, nn.Module], apart: Collection[str]) -> None:
        super().__init__()
        _check_names(networks)
        first = next(iter(networks.values()))
        paths = head_paths(first, apart)
        for name, network in networks.items():
            if head_paths(network, apart) != paths:
                raise ArchitectureError(
                    f"Expected the heads {listed(paths)} in every network but {name!r} has "
                    f"{listed(head_paths(network, apart))}."
                )
            _check_trunk(first, network, paths, name)
        twins = {name: standalone_copy(network) for name, network in networks.items()}
        choices = {
            id(first.get_submodule(path)): HeadChoice(
                {name: twin.get_submodule(path) for name, twin in twins.items()}
            )
            for path in paths
        }
        self.network = copied(first, choices)
        self.train(first.training)

    @property
    def names(self) -> tuple[str, ...]:
        """Name the label sets."""
        return tuple(next(self._choices()).heads)

    def forward(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        """Run the network with every head.

        Returns:
            The output with each head, by name.
        """
        first, *others = self.names
        choices = list(self._choices())
        for choice in choices:
            choice.calls = []
        try:
            outputs = {first: self._run(first, arguments, keywords)}
            calls = [call for choice in choices for call in choice.calls or []]
        finally:
            for choice in choices:
                choice.calls = None
        # What a sole head returned is the output itself: no other part of the network comes after it.
        is_last = len(choices) == len(calls) == 1 and calls[0][2] is outputs[first]
        for name in others:
            if is_last:
                outputs[name] = choices[0].heads[name](*calls[0][0], **calls[0][1])
            else:
                outputs[name] = self._run(name, arguments, keywords)
        return outputs

    def alone(self, name: str) -> nn.Module:
        """Return a plain network with one of the heads.

        It shares nothing with this one.

        Raises:
            ArchitectureError: there is no such head.
        """
        if name not in self.names:
            raise ArchitectureError(f"Expected one of the heads {listed(self.names)} but got {name!r}.")
        heads = {id(choice): standalone_copy(choice.heads[name]) for choice in self._choices()}
        return copied(self.network, heads)

    def _run(self, name: str, arguments: Any, keywords: Any) -> Any:
        choices = list(self._choices())
        before = [choice.name for choice in choices]
        for choice in choices:
            choice.name = name
        try:
            return self.network(*arguments, **keywords)
        finally:
            for choice, earlier in zip(choices, before, strict=True):
                choice.name = earlier

    def _choices(self) -> Iterator[HeadChoice]:
        for module in self.network.modules():
            if isinstance(module, HeadChoice):
                yield module


class HeadChoice(nn.Module):
    """Run the head that is chosen.

    It stands in the place of a head.

    Args:
        heads: the modules, by the names of their label sets.

    Attributes:
        name: of the head that runs.
        calls: arguments, keywords and output of each call while they are recorded; None otherwise.
    """

    calls: list[tuple[Any, Any, Any]] | None

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)
        self.name = next(iter(heads))
        self.calls = None

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the chosen head."""
        output = self.heads[self.name](*arguments, **keywords)
        if self.calls is not None:
            self.calls.append((arguments, keywords, output))
        return output

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the chosen head."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_modules" not in vars(self) or "heads" not in self._modules or "name" not in vars(self):
                raise
            return getattr(self.heads[self.name], name)

    def __getitem__(self, index: Any) -> Any:
        """Return a part of the chosen head."""
        head: Any = self.heads[self.name]
        return head[index]


def with_each_head(merged: Callable[[Any], nn.Module], apart: Collection[str]) -> SeparateHeads:
    """Join two merges with one head each.

    Args:
        merged: from ``"reference"`` or ``"target"`` to the merged network with that head.
        apart: names of the tensors that each network keeps.

    Raises:
        ArchitectureError: there are none.
    """
    check_kept_apart(apart)
    return SeparateHeads({whose: merged(whose) for whose in ("reference", "target")}, apart)


def check_kept_apart(apart: Collection[str]) -> None:
    """Raise ArchitectureError unless networks keep tensors apart.

    >>> check_kept_apart(["head.weight"])
    """
    if not apart:
        raise ArchitectureError(
            "Expected heads that each network keeps for heads='each', but all tensors are mixed: name the layers by "
            "ignore=, such as ignore=['fc'], when the networks are aligned."
        )


def head_paths(network: nn.Module, apart: Collection[str]) -> list[str]:
    """Find the modules of the heads.

    They are the largest that hold only tensors kept apart.

    Raises:
        ArchitectureError: such a tensor lies outside of them, or nothing would be left for the trunk.

    >>> head = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))
    >>> head_paths(nn.Sequential(nn.Linear(2, 2), head), ["1.0.weight", "1.0.bias", "1.2"])
    ['1']
    """
    names = list(tensors_of(network))
    kept = {name for name in names if any(name == each or name.startswith(f"{each}.") for each in apart)}
    paths: list[str] = []
    for path, _ in network.named_modules(remove_duplicate=False):
        inside = {name for name in names if name.startswith(f"{path}.")} if path else set()
        if inside and inside <= kept and not any(path.startswith(f"{head}.") for head in paths):
            paths.append(path)
    left = sorted(name for name in kept if not any(name.startswith(f"{head}.") for head in paths))
    if left or not kept or len(kept) == len(names):
        told = f"{left[0]!r} shares its module with the trunk" if left else f"they are {len(kept)} tensors"
        raise ArchitectureError(
            f"Expected heads that are modules of their own, kept apart with all of their tensors, but {told} of "
            f"{len(names)}: name whole modules, such as the last layer."
        )
    return paths


def _check_names(networks: Mapping[str, nn.Module]) -> None:
    if len(networks) < 2:
        raise ArchitectureError(f"Expected at least two networks with heads but got {len(networks)}.")
    for name, network in networks.items():
        if not isinstance(name, str) or not name or "." in name:
            raise ArchitectureError(f"Expected names of label sets without a dot but got {name!r}.")
        if not isinstance(network, nn.Module):
            raise ArchitectureError(
                f"Expected modules, which run with their heads, but {name!r} is {type(network).__name__}."
            )


def _check_trunk(first: nn.Module, network: nn.Module, paths: Collection[str], name: str) -> None:
    def trunk(module: nn.Module) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all but heads."""
        heads = tuple(f"{path}." for path in paths)
        return {n: tuple(t.shape) for n, t in tensors_of(module).items() if not n.startswith(heads)}

    expected, given = trunk(first), trunk(network)
    for tensor in [*expected, *given]:
        if expected.get(tensor) != given.get(tensor):
            raise ArchitectureError(
                f"Expected one trunk in all networks but {tensor!r} has shape {expected.get(tensor)} in the first "
                f"and {given.get(tensor)} in {name!r}: keep it apart too."
            )
