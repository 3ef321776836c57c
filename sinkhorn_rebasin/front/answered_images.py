"""Batches for an alignment without data: images that are drawn, and what both networks say of them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front.criteria import output_of
from sinkhorn_rebasin.front.ensemble_targets import class_probabilities
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.drawn_images import drawn_images
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.layers import first_argument
from sinkhorn_rebasin.networks.randomness import untouched_randomness


def answered_images(
    reference: nn.Module,
    target: nn.Module,
    example_inputs: Tensor,
    *,
    samples: int = 2048,
    batch_size: int = 128,
    seed: int = 0,
) -> list[tuple[Tensor, Tensor]]:
    r"""Draw images and let both networks answer them.

    .. math:: y = \tfrac12 \bigl(\mathrm{softmax} f(x;\, \theta_R) + \mathrm{softmax} f(x;\, \theta_T)\bigr)

    They take the place of data in :func:`align`, with cross entropy as criterion. Networks in between then learn to
    answer as the two do on the average. Images are those of :func:`drawn_images`, in colors that vary as the
    reference's first layer does.

    - It is for networks that were trained on normalized images: of mean 0 and standard deviation 1.
    - What both say of drawn images need not be right, and the figures of such an alignment are not those of data.

    Args:
        reference, target: classifiers of images; neither is changed.
        example_inputs: images, (N, channels, height, width); their shape and type alone are looked at.
        samples: how many are drawn.
        batch_size: of the batches.
        seed: of the draw.

    Returns:
        Batches of images (N, channels, height, width) and answers (N, classes).

    Raises:
        DataError: the inputs are no images, or a network does not answer with (N, classes).

    Example:
        >>> nets = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)) for _ in range(2)]
        >>> batches = answered_images(*nets, torch.zeros(1, 1, 8, 8), samples=256)
        >>> [tuple(part.shape) for part in batches[0]]
        [(128, 1, 8, 8), (128, 3)]

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), for the answers.
    """
    if not isinstance(example_inputs, Tensor) or example_inputs.ndim != 4:
        shape = tuple(example_inputs.shape) if isinstance(example_inputs, Tensor) else type(example_inputs)
        raise DataError(
            f"Expected example images of shape (N, channels, height, width), like which others are drawn, but got "
            f"{shape}: pass data to align with."
        )
    images = drawn_images(_first_filters(reference, example_inputs), example_inputs, samples, seed)
    batches = []
    for part in images.split(batch_size):
        answers = [
            class_probabilities(
                output_of(network, part), type(network).__name__, "pass data to align with"
            ).to(part)
            for network in (reference, target)
        ]
        batches.append((part, (answers[0] + answers[1]) / 2))
    return batches


@torch.no_grad()
def _first_filters(network: nn.Module, images: Tensor) -> Tensor:
    """Return the first layer's weight as filters.

    Their shape is (outputs, channels, height, width).

    Where no layer reads the images themselves, colors are drawn independently.
    """
    twin, state = evaluation_copy(network), tensors_of(network)
    given = torch.linspace(-1, 1, images[0].numel()).reshape(1, *images.shape[1:]).to(images)
    seen: list[Tensor] = []

    def record(layer: nn.Module, arguments: Any, keywords: Any) -> None:
        """Note the weight that reads the images."""
        inputs = first_argument(arguments, keywords)
        if not isinstance(inputs, Tensor) or not isinstance(layer, (nn.Conv2d, nn.Linear)):
            return
        weight, channels = layer.weight.detach().clone(), images.shape[1]
        if weight.shape[1] % channels == 0 and torch.equal(inputs.flatten().to(given), given.flatten()):
            seen.append(weight.unflatten(1, (channels, -1)).flatten(2)[..., None])

    with ExitStack() as hooks, untouched_randomness():
        for layer in twin.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                hooks.callback(layer.register_forward_pre_hook(record, with_kwargs=True).remove)
        run_at(twin, state, given.to(device_of(state)))
    return seen[0] if seen else torch.eye(images.shape[1])[:, :, None, None]
