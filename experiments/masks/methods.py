"""Every way to carry the mask of one network to another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from experiments.data import ImageData
from experiments.masks.setting import Setting
from experiments.masks.tickets import Masks, Ticket
from experiments.models.family import Batches, batches_of
from sinkhorn_rebasin.assignment.temperature import geometric


@dataclass(frozen=True)
class Problem:
    """Hold two tickets, and what methods may look at.

    Attributes:
        source, receiver: whose mask is carried, and to which network.
        train: training images in batches.
        held: batches of held-out images.
        setting: where they come from.
    """

    source: Ticket
    receiver: Ticket
    train: Batches
    held: Batches
    setting: Setting

    @classmethod
    def of(
        cls, source: Ticket, receiver: Ticket, data: ImageData, held: Batches, setting: Setting
    ) -> Problem:
        """Take so many of the training images as the setting says."""
        count = setting.match_images
        return cls(
            source,
            receiver,
            batches_of(data.train_images[:count], data.train_labels[:count]),
            held,
            setting,
        )


def methods(problem: Problem) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Return each way to get a mask for the receiver, by name."""
    source, receiver = problem.source, problem.receiver
    spec = sr.discover_symmetry(receiver.dense, problem.train[0][0][:2])
    pair = receiver.dense, source.dense, spec
    found: dict[str, sr.Alignment] = {}

    def carried(alignment: sr.Alignment) -> dict[str, Tensor]:
        return dict(alignment.carry(source.mask, "mask"))

    def on_path() -> sr.Alignment:
        if "path" not in found:
            options = {"rescale": False, "recipe": problem.setting.recipe, "progress": False}
            networks = receiver.dense, source.dense
            found["path"] = sr.align(
                *networks, problem.train, problem.held, spec=spec, trainer={"accelerator": "cpu"}, **options
            ).alignment
        return found["path"]

    return {
        "naive mask": lambda: dict(source.mask),
        "random mask": lambda: shuffled(source.mask, receiver.seed),
        "weight matching": lambda: carried(sr.weight_matching(*pair, restarts=5)),
        "activation matching": lambda: carried(sr.activation_matching(*pair, data=problem.train)),
        "ours, on the path": lambda: carried(on_path()),
        "ours, on the mask": lambda: carried(learned_on_mask(problem, spec, on_path())),
    }


def timed(way: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
    """Return a mask and the processor seconds that it took."""
    began = time.process_time()
    return way(), time.process_time() - began


def shuffled(mask: Masks, seed: int) -> dict[str, Tensor]:
    """Return a mask that leaves out as many weights of every layer, drawn at random."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: part.flatten()[torch.randperm(part.numel(), generator=draw)].view_as(part)
        for name, part in mask.items()
    }


def learned_on_mask(problem: Problem, spec: sr.PermutationSpec, start: sr.Alignment) -> sr.Alignment:
    r"""Learn the permutations with which the carried mask hurts the receiver least.

    .. math:: \min_P\; \mathcal C\bigl(\theta_R \odot \pi_P(m_T)\bigr)

    with the trained weights of the receiver and soft permutations, annealed. Of the start and the hard permutations
    met every so many steps, those with the least loss on held-out images are returned.
    """
    receiver, steps = problem.receiver.dense, problem.setting.mask_steps
    weights = {name: tensor.detach() for name, tensor in receiver.state_dict().items()}
    ones = {name: torch.ones_like(tensor) for name, tensor in weights.items()}
    masks = {**ones, **{name: part.float() for name, part in problem.source.mask.items()}}
    rebasin = sr.SinkhornRebasin(receiver, masks, spec=spec, start=start)
    adam, schedule = torch.optim.Adam(rebasin.parameters(), lr=0.1), geometric(0.5, 0.05)
    best, least = start, _held_loss(receiver, start, problem)
    for step in range(steps):
        rebasin.temperature.fill_(schedule(step / max(1, steps - 1)))
        images, labels = problem.train[step % len(problem.train)]
        soft = rebasin.rebased_state()
        masked = {name: weights[name] * soft[name] for name in problem.source.mask}
        loss = F.cross_entropy(functional_call(receiver, {**weights, **masked}, (images,)), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if (step + 1) % max(1, steps // 10) == 0:
            now = rebasin.alignment()
            value = _held_loss(receiver, now, problem)
            best, least = (now, value) if value < least else (best, least)
    return best


@torch.no_grad()
def _held_loss(receiver: nn.Module, alignment: sr.Alignment, problem: Problem) -> float:
    """Return the loss of the receiver under the carried mask."""
    mask = alignment.carry(problem.source.mask, "mask")
    weights = dict(receiver.named_parameters())
    masked = {name: weights[name] * mask[name] for name in mask}
    losses = [
        F.cross_entropy(functional_call(receiver, {**weights, **masked}, (images,)), labels, reduction="sum")
        for images, labels in problem.held or problem.train
    ]
    return float(sum(losses))
