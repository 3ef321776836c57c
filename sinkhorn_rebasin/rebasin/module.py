"""Sinkhorn re-basin: a module whose parameters are scores and whose function is the re-ordered target.

This is the method in one file: scores become soft permutations (``assignment``), which act on the target's
weights (``permutations``) along the symmetries of the architecture (``symmetry``); the result runs at any point
of the segment to the reference (``connectivity``), so that any loss can train the scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, ExampleInputs, Outputs, Permutations, State, StateLike
from sinkhorn_rebasin.activations import repair as repaired
from sinkhorn_rebasin.assignment import SinkhornResult, hard_assignment, sinkhorn_by_size
from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.connectivity.interpolation import Interpolation, is_mixable, possibly_infinite
from sinkhorn_rebasin.connectivity.statistics import moving_statistics
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.checkpoint import check_checkpoint
from sinkhorn_rebasin.networks.comparison import check_comparable, check_same_function
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy, thawed_copy, traits_of
from sinkhorn_rebasin.networks.full_precision import KeptTensors, LearnedTensors
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, permute_state, rescale_state
from sinkhorn_rebasin.rebasin.initialization import Start, check_group_names, initial_scores
from sinkhorn_rebasin.rebasin.signed_permutations import SignedPermutations, signs_of_units
from sinkhorn_rebasin.symmetry import verify_symmetry
from sinkhorn_rebasin.symmetry.requested import requested_symmetry
from sinkhorn_rebasin.symmetry.rescaling.discovery import requested_rescaling


class SinkhornRebasin(nn.Module):
    r"""Two networks of one architecture and the learned permutations that carry one into the other's basin.

    .. math:: P_g = \mathrm{Sinkhorn}(X_g / \tau), \qquad \theta(\lambda) =
        (1 - \lambda)\, \pi_P(\theta_T) + \lambda\, \theta_R

    The scores :math:`X_g` are the only parameters, unless scales and signs are learned as well (``rescale``). In
    training mode permutations and signs are soft and differentiable, in eval mode hard, so that the rebased target
    computes exactly the target's function. The reference and the target are frozen copies: the networks passed in
    are never changed. In training mode batch norm runs on batch statistics, which a mixture of two networks needs;
    everything else runs as in evaluation. Merged batch-norm networks want their statistics re-estimated
    (:func:`reset_batch_norm`) before they are used.

    Args:
        reference: the network that stays as it is, :math:`\theta_R`.
        target: the network whose units are re-ordered, :math:`\theta_T`; same tensor names and shapes.
        example_inputs: a tensor, tuple or dict the networks take; needed unless ``spec`` is given.
        spec: the symmetries to use, instead of discovering them.
        start: where the scores start: ``"weight_matching"``, ``"identity"``, an :class:`Alignment`, or a mapping
            from group name to index vectors or to score matrices.
        noise: standard deviation of normal noise added to the initial scores.
        temperature: :math:`\tau`, a buffer; schedules move it during training.
        tolerance, max_iterations: of the Sinkhorn iteration in training mode.
        rescale: learn the scales of the target's units too, along the exact rescalings of the architecture (or those
            given): :math:`\theta_T` becomes :math:`\rho_s(\theta_T)` with :math:`s = \exp(\mathtt{log\_scales})`,
            before the permutations, and so stays the same function. They start at one. Where a sign is free (tanh),
            it is learned as well: :math:`P_g \circ \tanh(\mathtt{sign\_scores}_g / \tau)` moves the units.
        check: verify numerically, on ``example_inputs``, that the symmetries leave the function unchanged and
            that the two networks differ in their weights alone: five forwards, in float64 where there is one.
        generator: draws the noise and the order of weight matching.
        outputs, min_coverage: which outputs count, and the least share that must be permutable: see
            :func:`discover_symmetry`. Those of a given ``spec`` are its own unless told.

    Raises:
        ArchitectureError: when the networks differ (the first tensor is named), have no permutable unit, do not
            run on the example inputs, return something else in every run, or cannot be copied.
        SymmetryError: when a claimed symmetry changes the function; its group is named.
        SpecError: when ``spec`` is of another network.

    Example:
        >>> reference, target = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> rebasin = SinkhornRebasin(reference, target, torch.randn(2, 4))
        >>> x = torch.randn(16, 4)
        >>> torch.allclose(rebasin.eval()(x), target(x), atol=1e-5)    # another place, the same function
        True
        >>> rebasin.train()(x, at=0.5).sum().backward()                # any loss trains the scores
        >>> [name for name, _ in rebasin.named_parameters()]
        ['scores.0']

    Source: Guerrero-Peña, Medeiros, Dubail, Aminbeidokhti, Granger, Pedersoli, "Re-basin via implicit Sinkhorn
    differentiation" (2023).
    """

    temperature: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        reference: nn.Module,
        target: nn.Module,
        example_inputs: ExampleInputs = None,
        *,
        spec: PermutationSpec | None = None,
        start: Start = "weight_matching",
        noise: float = 0.0,
        temperature: float = 1.0,
        tolerance: float = 1e-4,
        max_iterations: int = 1000,
        rescale: bool | RescalingSpec = False,
        check: bool = True,
        generator: torch.Generator | None = None,
        outputs: Outputs = None,
        min_coverage: float = 0.0,
    ) -> None:
        super().__init__()
        check_supported(reference)
        check_supported(target)
        check_comparable(reference, target)
        self.spec = requested_symmetry(reference, spec, example_inputs, outputs, min_coverage)
        self.spec.check_state(tensors_of(reference))
        self.spec.check_constants(tensors_of(target))
        if not self.spec.groups:
            raise ArchitectureError(
                f"Expected a network with permutable hidden units but {type(reference).__name__} has none. "
                f"What is frozen and why:\n{self.spec}"
            )
        if check and example_inputs is not None:
            verify_symmetry(target, self.spec, example_inputs, trials=1)
            check_same_function(reference, target, example_inputs, self.spec.outputs)
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self._traits = traits_of(target)
        self._mixing = Interpolation(target, moving_statistics(reference, target, example_inputs))
        self.reference = frozen_copy(reference)
        self.target = frozen_copy(target)
        self.rescaling = requested_rescaling(target, self.spec, rescale, example_inputs, check=check)
        states = self.reference_state(), self.target_state()
        self._infinite = possibly_infinite({n: t for n, t in states[1].items() if is_mixable(t)})
        first = initial_scores(
            *states, self.spec, start, rescaling=self.rescaling, noise=noise, generator=generator
        )
        check_group_names(self.spec)
        self._signed = SignedPermutations(self.spec, self.rescaling)
        self.scores = LearnedTensors(first.scores)
        self.sign_scores = LearnedTensors(first.sign_scores)
        shapes = self.rescaling.shapes(self.spec)
        self.log_scales = LearnedTensors(
            {name: first.scores[name].new_zeros(shape) for name, shape in shapes.items()}
        )
        self.register_buffer(
            "temperature", torch.tensor(float(temperature), dtype=torch.float32, device="cpu")
        )
        # Where the last Sinkhorn iteration ended, from which the next one starts.
        self.scalings = KeptTensors({n: torch.zeros_like(v[..., 0]) for n, v in first.scores.items()})
        self.register_load_state_dict_pre_hook(check_checkpoint)
        self.train()

    def reference_state(self) -> State:
        """The reference's tensors."""
        return tensors_of(self.reference)

    def target_state(self) -> State:
        """The target's tensors, in their original order."""
        return tensors_of(self.target)

    def soft_assignments(self) -> dict[str, SinkhornResult]:
        """Per group, the Sinkhorn result at the current temperature, with its diagnosis."""
        results = sinkhorn_by_size(
            dict(self.scores.items()),
            float(self.temperature),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            initial_scalings={name: getattr(self.scalings, name) for name in self.scores},
        )
        if self.training:
            for name, result in results.items():
                getattr(self.scalings, name).copy_(result.column_scaling)
        return results

    def soft_permutations(self) -> dict[str, Tensor]:
        """Per group, the doubly stochastic matrices Sinkhorn(X/τ), (n, n) or (blocks, n, n), differentiable."""
        return {name: result.matrix for name, result in self.soft_assignments().items()}

    @torch.no_grad()
    def hard_permutations(self) -> dict[str, Tensor]:
        """Per group, the index vectors, (n,) or (blocks, n), of the permutation that maximises ⟨P, X⟩."""
        return {name: hard_assignment(scores) for name, scores in self.scores.items()}

    def soft_signs(self) -> dict[str, Tensor]:
        """Per group with sign generators, tanh(Z/τ) of every pair, (generators, ..., n, n)."""
        return {name: (scores / self.temperature).tanh() for name, scores in self.sign_scores.items()}

    def hard_signs(self) -> dict[str, Tensor]:
        """Per group with sign generators, ±1 for each of them and of the target's units, as they were ordered."""
        return signs_of_units(dict(self.sign_scores.items()), self.hard_permutations())

    def rebased_state(self, hard: bool | None = None, *, own_dtype: bool = True) -> State:
        """The target's tensors after rescaling and permutations: soft in training, hard in eval mode unless told.

        Args:
            hard: whether at hard permutations.
            own_dtype: in the target's own types; else those of networks in half precision are in that of the scores,
                through which small gradients come back.
        """
        hard = not self.training if hard is None else hard
        permutations = self.hard_permutations() if hard else self.soft_permutations()
        return self.rebased_by(permutations, own_dtype=own_dtype)

    def rebased_by(self, permutations: Permutations, *, own_dtype: bool = True) -> State:
        """The target's tensors after rescaling and these permutations, all hard or all soft, and their signs.

        Buffers that are no statistics, such as masks, and weights of which some are infinite are moved by hard
        permutations in either case.
        """
        hard = not any(permutation.is_floating_point() for permutation in permutations.values())
        target = self.target_state()
        signs = signs_of_units(dict(self.sign_scores.items()), permutations) if hard else None
        scaled = rescale_state(target, self.spec, self.rescaling, dict(self.log_scales.items()), signs)
        if hard:
            rebased = permute_state(scaled, self.spec, permutations)
        else:
            rebased = self._signed.applied(scaled, permutations, self.soft_signs())
            whole = [name for name in self._mixing.whole | self._infinite if self.spec.slots_on(name)]
            moved = self.rebased_by(self.hard_permutations()) if whole else {}
            rebased.update({name: moved[name] for name in whole})
        if not own_dtype:
            return rebased
        # Scores are wider than half precision; the network takes its own type.
        return {name: tensor.to(target[name].dtype) for name, tensor in rebased.items()}

    def state_at(self, at: float | Tensor, hard: bool | None = None) -> State:
        """The tensors at a position of the segment: 0 is the rebased target, 1 the reference.

        Equal tensors pass through bit for bit. Buffers that are no statistics of norm layers, and have no mean, are
        those of the nearer end.

        Raises:
            ArchitectureError: when the position is a tensor with more than one entry.

        Warns:
            RebasinWarning: Such buffers differ; they are named once.
        """
        return self.mixed(self.rebased_state(hard), at)

    def mixed(self, rebased: StateLike, at: float | Tensor) -> State:
        """The tensors between a rebased target and the reference, as in :meth:`state_at`."""
        return self._mixing(rebased, self.reference_state(), at)

    def forward(self, inputs: ExampleInputs, at: float | Tensor | None = None) -> Any:
        """The output of the rebased target, or of the network at a position of the segment.

        Args:
            inputs: a tensor, a tuple of positional or a dict of keyword arguments.
            at: λ; None is the rebased target itself.
        """
        state = self.rebased_state() if at is None else self.state_at(at)
        return self.run(state, inputs)

    def run(self, state: State, inputs: ExampleInputs) -> Any:
        """The network's output at any state of this architecture, batch norm in this module's mode."""
        with batch_statistics(self.reference, on=self.training):
            return run_at(self.reference, state, inputs)

    def path(self) -> LinearPath:
        """The segment from the hard rebased target (λ=0) to the reference (λ=1)."""
        states = self.rebased_state(hard=True), self.reference_state()
        return LinearPath(self.to_model(), *states, self._mixing.statistics)

    def to_model(self) -> nn.Module:
        """The target with hard permutations as a plain network: the same function in a new place."""
        return thawed_copy(self.target, self.rebased_state(hard=True), self._traits)

    def merge(
        self,
        at: float = 0.5,
        *,
        repair: Iterable[Any] | None = None,
        rescale_only: bool = False,
        batch: BatchAdapter | None = None,
    ) -> nn.Module:
        """The network at a position of the segment, with hard permutations, as a plain network.

        Args:
            at: λ.
            repair: batches of training data on which its activations are put right: see
                :func:`~sinkhorn_rebasin.repair`.
            rescale_only: put standard deviations right, and leave the means.
            batch: a function from a batch to (inputs, labels), for data that yield something else.
        """
        merged = thawed_copy(self.target, self.state_at(at, hard=True), self._traits)
        if repair is None:
            return merged
        networks = merged, self.reference, self.to_model()
        return repaired(*networks, self.spec, repair, at=at, rescale_only=rescale_only, batch=batch)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        groups = listed(f"{group.name}: {tuple(group.shape)}" for group in self.spec.groups)
        return f"{groups}; temperature={float(self.temperature):g}"
