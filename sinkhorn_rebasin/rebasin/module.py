"""Sinkhorn re-basin: a module whose parameters are scores and whose function is the re-ordered target.

This is the method in one file: scores become soft permutations (``assignment``), which act on the target's
weights (``permutations``) along the symmetries of the architecture (``symmetry``); the result runs at any point
of the segment to the reference (``connectivity``), so that any loss can train the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs, Heads, NetworkLike, Outputs, Permutations, State
from sinkhorn_rebasin.assignment import SinkhornResult, SparseSinkhornResult
from sinkhorn_rebasin.assignment.temperature import check_temperature
from sinkhorn_rebasin.connectivity.interpolation import is_mixable, possibly_infinite
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.checkpoint import check_checkpoint
from sinkhorn_rebasin.networks.full_precision import KeptTensors, LearnedTensors
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, identity_permutations, rescale_state
from sinkhorn_rebasin.permutations.algebra import is_hard
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS
from sinkhorn_rebasin.permutations.signed_permutations import SignedPermutations, signs_of_units
from sinkhorn_rebasin.rebasin.candidates import Candidates, CandidateScores
from sinkhorn_rebasin.rebasin.initialization import Start, initial_scores
from sinkhorn_rebasin.rebasin.learned_maps import LearnedMaps, identities_like
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry, prepared
from sinkhorn_rebasin.rebasin.segment import RebasedSegment


class SinkhornRebasin(RebasedSegment):
    r"""Learn the permutations that carry one network into another's basin.

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
        target: the network whose units are re-ordered, :math:`\theta_T`; same tensor names and shapes. One of the
            two may be a state, a checkpoint or the path of one, which the other's module runs.
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
        symmetry: ``"permutation"``, ``"full"`` or a :class:`ContinuousSpec`. With ``"full"`` the continuous
            symmetries are discovered: streams turn by :math:`O_g = \exp(S - S^\top)\, O_0`, heads and bottlenecks by
            :math:`A_g = \exp(D)\, A_0`, exactly at every step. Both networks are brought into canonical form first,
            as networks of the same class. Groups whose gains cannot be folded keep their permutations, and a
            :class:`RebasinWarning` names them.
        learn_permutations: learn the scores; None: unless there are continuous symmetries, with which permutations
            of hidden units stay as the start has them.
        both_sides: the reference moves along its continuous symmetries too, and the networks meet.
        check: verify numerically, on ``example_inputs``, that the symmetries leave the function unchanged and
            that the two networks differ in their weights alone: five forwards, in float64 where there is one.
        generator: draws the noise and the order of weight matching.
        outputs, min_coverage: which outputs count, and the least share that must be permutable: see
            :func:`discover_symmetry`. Those of a given ``spec`` are its own unless told.
        ignore: layers that each network keeps for itself, by name or pattern: see :meth:`PermutationSpec.ignoring`.
            Last layers of other shapes are ignored without being named. They stay out of every distance and mean.
            The rebased target has its own.
        heads: whose ignored layers the networks between both have, ``"reference"`` or ``"target"``; None: the
            reference's, and :meth:`path` wants it said.
        candidates: k, for scores on k candidates of each unit in wider groups; they change as training goes on.
            None: 32 from a width of 2048 on; ``"all"``: never. Groups with free signs have all scores.

    Raises:
        AssignmentError: when the temperature is not positive.
        ArchitectureError: when the networks differ (the first tensor is named), have no permutable unit, do not
            run on the example inputs, return something else in every run, or cannot be copied.
        SymmetryError: when a claimed symmetry changes the function; its group is named.
        SpecError: when ``spec`` is of another network.

    Example:
        >>> from torch import nn
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
        reference: NetworkLike,
        target: NetworkLike,
        example_inputs: ExampleInputs = None,
        *,
        spec: PermutationSpec | None = None,
        start: Start = "weight_matching",
        noise: float = 0.0,
        temperature: float = 1.0,
        tolerance: float = 1e-4,
        max_iterations: int = 1000,
        rescale: bool | RescalingSpec = False,
        symmetry: RequestedSymmetry = "permutation",
        learn_permutations: bool | None = None,
        both_sides: bool = False,
        check: bool = True,
        generator: torch.Generator | None = None,
        outputs: Outputs = None,
        min_coverage: float = 0.0,
        ignore: Sequence[str] = (),
        heads: Heads | None = None,
        candidates: Candidates = None,
    ) -> None:
        check_temperature(temperature)
        asked = spec, symmetry, rescale, outputs, min_coverage, ignore
        ready = prepared(reference, target, example_inputs, *asked, check=check)
        super().__init__(ready.reference, ready.target, example_inputs, spec=ready.spec, heads=heads)
        self.continuous, self.rescaling = ready.continuous, ready.rescaling
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self._action = SignedPermutations(self.spec, self.rescaling, self.continuous)
        states = tensors_of(self.reference), self.target_state()
        infinite = possibly_infinite({n: t for n, t in states[1].items() if is_mixable(t)})
        self._whole = [
            n for n in self.spec.shapes if n in self._mixing.whole | infinite and self.spec.slots_on(n)
        ]
        first = initial_scores(
            *(*states, self.spec, start, self.rescaling, self.continuous),
            noise=noise,
            generator=generator,
            candidates=candidates,
        )
        self.scores, self.candidates = LearnedTensors(first.scores), CandidateScores(first.candidates)
        self.learn_permutations = not self.continuous if learn_permutations is None else learn_permutations
        self.scores.requires_grad_(self.learn_permutations)
        self.sign_scores = LearnedTensors(first.sign_scores)
        self.log_scales = LearnedTensors(first.log_scales)
        self.maps = LearnedMaps(self.continuous, first.maps)
        moving = self.continuous if both_sides else NO_CONTINUOUS
        self.reference_maps = LearnedMaps(moving, identities_like(first.maps))
        begin = torch.tensor(float(temperature), dtype=torch.float32, device="cpu")
        self.register_buffer("temperature", begin)
        # Where the last Sinkhorn iteration ended, from which the next one starts.
        self.scalings = KeptTensors({n: torch.zeros_like(v[..., 0]) for n, v in first.scores.items()})
        self.register_load_state_dict_pre_hook(check_checkpoint)
        self.train()

    def reference_state(self) -> State:
        """Return the reference's tensors; where both sides move, in their new place."""
        state = super().reference_state()
        maps = self.reference_maps()
        if not maps:
            return state
        stay = {name: order for name, order in identity_permutations(self.spec).items() if name not in maps}
        moved = self._action.applied(state, stay, {}, maps)
        return {name: tensor.to(state[name].dtype) for name, tensor in moved.items()}

    def soft_assignments(self) -> dict[str, SinkhornResult | SparseSinkhornResult]:
        """Run Sinkhorn on every group, and diagnose it."""
        solver = float(self.temperature), self.tolerance, self.max_iterations
        results = self.candidates.soft(self.scores, self.scalings, *solver)
        if self.training:
            for name, result in results.items():
                getattr(self.scalings, name).copy_(result.column_scaling)
        return results

    def soft_permutations(self) -> dict[str, Tensor]:
        """Return Sinkhorn(X/τ) per group, differentiable in the scores; sparse where they are."""
        return self.candidates.permutations(self.soft_assignments())

    @torch.no_grad()
    def hard_permutations(self) -> dict[str, Tensor]:
        """Return indices per group that maximize ⟨P, X⟩, (n,) or (blocks, n)."""
        return self.candidates.hard(self.scores, self.scalings)

    def soft_signs(self) -> dict[str, Tensor]:
        """Return tanh(Z/τ) per group, (generators, ..., n, n)."""
        return {name: (scores / self.temperature).tanh() for name, scores in self.sign_scores.items()}

    def hard_signs(self) -> dict[str, Tensor]:
        """Return ±1 for each sign generator and unit.

        Per group with sign generators, of the target's units in their original order.
        """
        return signs_of_units(dict(self.sign_scores.items()), self.hard_permutations())

    def permutations(self, hard: bool | None = None) -> dict[str, Tensor]:
        """Return soft or hard permutations.

        Soft ones in training mode and hard ones in eval mode, unless ``hard`` says which. Permutations that are not
        learned are hard.
        """
        hard = not (self.training and self.learn_permutations) if hard is None else hard
        return self.hard_permutations() if hard else self.soft_permutations()

    def signs(self, permutations: Permutations) -> dict[str, Tensor]:
        """Return the signs that go with permutations.

        Signs of pairs of units beside soft permutations, and of units beside hard ones.
        """
        hard = is_hard(permutations)
        return signs_of_units(dict(self.sign_scores.items()), permutations) if hard else self.soft_signs()

    def rebased_state(
        self, hard: bool | None = None, *, permutations: Permutations | None = None, own_dtype: bool = True
    ) -> State:
        """Return the target's tensors after rescaling and permutations.

        Buffers that are no statistics, such as masks, and weights of which some are infinite are moved by hard
        permutations in either case.

        Args:
            hard: whether at hard permutations; None for soft ones in training mode and hard ones in eval mode.
            permutations: those of :meth:`permutations`, for a loss that needs the same ones more than once.
            own_dtype: in the target's own types; else those of networks in half precision are in that of the scores,
                through which small gradients come back.
        """
        permutations = self.permutations(hard) if permutations is None else permutations
        rebased = self.moved(self.target_state(), permutations)
        rebased.update(self._moved_whole(permutations))
        # Scores are wider than half precision; the network takes its own type.
        types = self.target_state() if own_dtype else rebased
        return {name: tensor.to(types[name].dtype) for name, tensor in rebased.items()}

    def moved(self, state: State, permutations: Permutations) -> State:
        """Move tensors like the target's, or such a difference."""
        scaled = rescale_state(state, self.spec, self.rescaling, dict(self.log_scales.items()))
        return self._action.applied(scaled, permutations, self.signs(permutations), self.maps())

    def scaled_state(self) -> State:
        """Return the target's tensors after rescaling, in their order."""
        return rescale_state(self.target_state(), self.spec, self.rescaling, dict(self.log_scales.items()))

    def acting(self) -> tuple[PermutationSpec, dict[str, Tensor]] | None:
        """Return the soft matrices, and the slots that they act on.

        None where more than they moves the networks: scales, candidates, hard permutations, a reference that turns.
        """
        others = bool(self.log_scales or self.candidates or self.reference_maps.symmetries)
        if self._whole or others or not (self.training and self.learn_permutations):
            return None
        permutations = self.soft_permutations()
        return self._action.matrices(permutations, self.signs(permutations), self.maps())

    def _moved_whole(self, permutations: Permutations) -> State:
        """Move what cannot be mixed by hard permutations."""
        if is_hard(permutations) or not self._whole:
            return {}
        moved = self.rebased_state(hard=True)
        return {name: moved[name] for name in self._whole}

    @torch.no_grad()
    def alignment(self) -> Alignment:
        """Return the hard permutations, signs, scales and maps as they are now.

        Where both sides move, its maps carry the target to the reference as it was given: the segment between them
        has the functions of the one between the moved networks.
        """
        permutations = self.hard_permutations()
        found = Alignment(
            permutations,
            self.spec,
            signs=self.signs(permutations),
            rescaling=self.rescaling if self.sign_scores or self.log_scales else None,
            log_scales={name: scale.detach().clone() for name, scale in self.log_scales.items()},
            method="SinkhornRebasin",
            maps={name: matrix.detach() for name, matrix in self.maps().items()},
            continuous=self.continuous or None,
        )
        moved = {name: matrix.detach() for name, matrix in self.reference_maps().items()}
        if not moved:
            return found
        back = Alignment({}, self.spec, maps=moved, continuous=self.continuous).invert()
        return back.compose(found).named(found.method)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        """Name the groups with their shapes, and the temperature."""
        groups = listed(f"{group.name}: {tuple(group.shape)}" for group in self.spec.groups)
        return f"{groups}; temperature={float(self.temperature):g}"
