"""Candidates of wide groups: which pairs of units have scores, and how others take their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import Permutations, State
from sinkhorn_rebasin.assignment import SinkhornResult, hard_assignment, sinkhorn_by_size
from sinkhorn_rebasin.assignment.sparse.candidates import best_pairs
from sinkhorn_rebasin.assignment.sparse.hungarian import sparse_assignment
from sinkhorn_rebasin.assignment.sparse.sinkhorn import SparseSinkhornResult, sparse_sinkhorn
from sinkhorn_rebasin.networks.full_precision import KeptTensors
from sinkhorn_rebasin.permutations import PermutationSpec, permutation_matrix
from sinkhorn_rebasin.permutations.sparse_permutation import SparsePattern, SparsePermutation

WIDE = 2048
"""Width from which scores are sparse by themselves."""

AUTOMATIC = 32
"""Candidates of each unit there."""

MOST_OFTEN = 10
"""Least number of steps from one look-up of candidates to the next; in wide groups it costs as much as many steps."""

Candidates: TypeAlias = int | Literal["all"] | None


def sparse_groups(spec: PermutationSpec, candidates: Candidates, besides: Collection[str]) -> dict[str, int]:
    """Tell which groups have scores on how many candidates.

    Args:
        spec: the groups.
        candidates: as for :class:`SinkhornRebasin`.
        besides: groups whose scores stay dense: those with signs or maps.

    >>> from sinkhorn_rebasin.permutations import Group
    >>> spec = PermutationSpec((Group("a", 8), Group("b", 4096)), (), {})
    >>> sparse_groups(spec, None, ()), sparse_groups(spec, 4, ()), sparse_groups(spec, "all", ())
    ({'b': 32}, {'a': 4, 'b': 4}, {})
    """
    if candidates == "all":
        return {}
    least, count = (WIDE, AUTOMATIC) if candidates is None else (candidates + 1, candidates)
    return {group.name: count for group in spec.groups if group.size >= least and group.name not in besides}


def first_candidates(guess: Tensor, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Choose candidates and scores that begin at a guess.

    Args:
        guess: indices (..., n), whose scores are one; or scores (..., n, n), whose largest in each row are kept.
        count: candidates of each unit.
        dtype: of the scores.

    >>> first_candidates(torch.tensor([1, 2, 0]), 2, torch.float32)[0].tolist()
    [[1, 2], [2, 0], [0, 1]]
    """
    if guess.is_floating_point():
        top = guess.detach().topk(count, dim=-1)
        return top.indices, top.values.to(dtype)
    n = guess.shape[-1]
    # Whatever stands beside the guess: a first step tells which others would gain.
    indices = (guess.unsqueeze(-1) + torch.arange(count, device=guess.device)) % n
    scores = torch.zeros(indices.shape, dtype=dtype, device=guess.device)
    scores[..., 0] = 1.0
    return indices, scores


class CandidateScores(nn.Module):
    r"""Make soft and hard permutations of scores on candidates.

    Pairs that are no candidates have the score zero. In the backward pass of some steps the k pairs of each row that
    the loss gains most by are looked up among all,

    .. math:: \min_j\ \frac{\partial L}{\partial P_{ij}} - p_i - q_j,

    with p and q the potentials of the implicit gradient. Before the next step they take the place of candidates that
    are not among them, unless those have the better half of the scores. A newcomer's score is zero, as it was, so no
    permutation changes.

    Args:
        candidates: per group, (..., n, k).

    Attributes:
        share: what makes the proposals of several processes one, such as a broadcast from the first; None: nothing.
    """

    age: Tensor

    def __init__(self, candidates: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.indices = KeptTensors(candidates)
        self.names = list(candidates)
        self.share: Callable[[Tensor], Tensor] | None = None
        self.interval = max(MOST_OFTEN, *(len(c.flatten(0, -2)) // 256 for c in candidates.values()), 0)
        self._patterns: dict[str, tuple[tuple[object, ...], Tensor, SparsePattern]] = {}
        self._proposals: dict[str, Tensor] = {}
        if candidates:
            # Steps since candidates were looked up last; -1 before they ever were.
            self.register_buffer("age", torch.tensor(-1, device="cpu"))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def pattern(self, name: str) -> SparsePattern:
        """Return a group's candidates in both orders."""
        candidates = self.indices.get_buffer(name)
        key = (candidates.data_ptr(), candidates._version, candidates.device)
        if name not in self._patterns or self._patterns[name][0] != key:
            # They are held, so that no others get their memory while they are compared by it.
            self._patterns[name] = key, candidates, SparsePattern(candidates.clone())
        return self._patterns[name][2]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_patterns": {}}

    def soft(
        self,
        scores: nn.ParameterDict,
        scalings: nn.Module,
        temperature: float,
        tolerance: float,
        max_iterations: int,
    ) -> dict[str, SinkhornResult | SparseSinkhornResult]:
        """Run Sinkhorn on every group, on candidates or on all scores.

        In training mode this begins a step: candidates may change before it.
        """
        learning = bool(self.names) and self.training and torch.is_grad_enabled()
        if learning:
            self._begin_step(scores)
        due = learning and not 0 <= int(self.age) < self.interval
        dense = {name: value for name, value in scores.items() if name not in self}
        starts = {name: getattr(scalings, name) for name in scores}
        results: dict[str, SinkhornResult | SparseSinkhornResult] = {}
        results |= sinkhorn_by_size(
            dense,
            temperature,
            tolerance=tolerance,
            max_iterations=max_iterations,
            initial_scalings=starts,
        )
        for name in self.names:
            results[name] = sparse_sinkhorn(
                scores[name],
                self.pattern(name).candidates,
                temperature,
                tolerance=tolerance,
                max_iterations=max_iterations,
                initial_scaling=starts[name],
                watcher=_Search(self, name) if due else None,
            )
        return results

    def permutations(self, results: Mapping[str, SinkhornResult | SparseSinkhornResult]) -> dict[str, Tensor]:
        """Return matrices, and what stands for them where there are candidates."""
        return {name: self._permutation(name, result) for name, result in results.items()}

    def _permutation(self, name: str, result: SinkhornResult | SparseSinkhornResult) -> Tensor:
        if isinstance(result, SinkhornResult):
            return result.matrix
        watcher = result.watcher.remember if isinstance(result.watcher, _Search) else None
        sparse = SparsePermutation(self.pattern(name), result.values, result.left, result.right, watcher)
        return cast(Tensor, sparse)  # It acts on weights as a matrix does.

    def hard(self, scores: nn.ParameterDict, scalings: nn.Module) -> dict[str, Tensor]:
        """Find the best permutation of every group, from its soft potentials."""
        return {
            name: sparse_assignment(value, self.indices.get_buffer(name))
            if name in self
            else hard_assignment(value, getattr(scalings, name))
            for name, value in scores.items()
        }

    @torch.no_grad()
    def place(self, scores: nn.ParameterDict, permutations: Permutations) -> None:
        """Set scores, and candidates, to those of hard permutations."""
        for name, value in scores.items():
            indices = permutations[name].to(value.device)
            if name not in self:
                value.copy_(permutation_matrix(indices, value.dtype))
                continue
            candidates, first = first_candidates(indices, value.shape[-1], value.dtype)
            self.indices.get_buffer(name).copy_(candidates)
            value.copy_(first)
            self.age.fill_(-1)
        self._proposals.clear()

    def propose(self, name: str, columns: Tensor) -> None:
        """Keep columns, -1 for none, that shall take the place of candidates."""
        self._proposals[name] = columns

    @torch.no_grad()
    def _begin_step(self, scores: nn.ParameterDict) -> None:
        if not self._proposals:
            self.age.add_(int(self.age) >= 0)
            return
        for name, columns in self._proposals.items():
            columns = columns if self.share is None else self.share(columns)
            _exchange(self.indices.get_buffer(name), scores[name], columns)
        self._proposals.clear()
        self.age.zero_()


def learned_tensors(rebasin: nn.Module) -> State:
    """Copy what a re-basin learns: its parameters, and whose scores they are."""
    tensors = [*rebasin.named_parameters(), *rebasin.named_buffers()]
    learned = {name for name, _ in rebasin.named_parameters()}
    return {
        name: tensor.detach().clone()
        for name, tensor in tensors
        if name in learned or "candidates" in name.split(".")[:3]
    }


@torch.no_grad()
def restore_learned(rebasin: nn.Module, kept: State) -> None:
    """Put copies of :func:`learned_tensors` back."""
    for name, tensor in [*rebasin.named_parameters(), *rebasin.named_buffers()]:
        if name in kept:
            tensor.copy_(kept[name])


class _Search:
    """Look up the pairs that a loss would gain most by.

    The backward pass tells it what every action's result is worth, and then the potentials.
    """

    def __init__(self, candidates: CandidateScores, name: str) -> None:
        self.candidates, self.name = candidates, name
        self.pattern = candidates.pattern(name)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def remember(self, gradient: Tensor, units: Tensor) -> None:
        """Keep dL/d(Pw) and w of one action, (blocks · n, m)."""
        self.seen.append((gradient.detach(), units.detach()))

    def __call__(self, p: Tensor, q: Tensor) -> None:
        """Propose the best pairs that are no candidates."""
        indices, n = self.pattern.candidates, q.shape[-1]
        count = indices.shape[-1]
        seen, self.seen = self.seen, []
        if not seen or count == n:
            return
        found = []
        for block, columns in enumerate(q.reshape(-1, n)):
            here = slice(block * n, (block + 1) * n)
            pairs = [(gradient[here], units[here]) for gradient, units in seen]
            found.append(best_pairs(partial(_gains, pairs, columns), n, count)[1])
        self.candidates.propose(self.name, torch.stack(found).view_as(indices))


def _exchange(indices: Tensor, scores: Tensor, wanted: Tensor) -> None:
    """Let candidates that are not wanted go, lowest scores first, but for the best half.

    Those that are wanted and are candidates stay in their place. All shapes are (..., n, k).
    """
    known = wanted.unsqueeze(-1) == indices.unsqueeze(-2)
    stays, new = known.any(-2), ~known.any(-1)
    kept = scores.topk((scores.shape[-1] + 1) // 2, dim=-1).indices
    stays = stays.scatter(-1, kept, True)
    # In each row the first that come, best first, take the places of the first that go.
    order = torch.where(stays, torch.inf, scores).argsort(dim=-1, stable=True)
    coming = (~new).long().argsort(dim=-1, stable=True)
    taken = new.gather(-1, coming) & ~stays.gather(-1, order)
    columns = torch.where(taken, wanted.gather(-1, coming), indices.gather(-1, order))
    values = torch.where(taken, 0.0, scores.gather(-1, order))
    indices.scatter_(-1, order, columns)
    scores.scatter_(-1, order, values)
    if scores.grad is not None:
        # Of steps before this one that are still being added up: what went has no part in them.
        scores.grad.masked_fill_(torch.zeros_like(taken).scatter(-1, order, taken), 0.0)


def _gains(pairs: list[tuple[Tensor, Tensor]], q: Tensor, first: int, last: int) -> Tensor:
    """Return q_j - dL/dP_ij of a block of rows, (rows, n)."""
    gains = q.expand(last - first, -1).clone()
    for gradient, units in pairs:
        gains.addmm_(gradient[first:last].to(gains.dtype), units.to(gains.dtype).mT, alpha=-1.0)
    return gains
