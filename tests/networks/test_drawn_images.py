"""Images are drawn as discs that lie over each other, in given colors."""

from __future__ import annotations

import torch

from sinkhorn_rebasin.networks.drawn_images import drawn_images


def test_colors_vary_as_the_channels_of_the_update_do() -> None:
    generator = torch.Generator().manual_seed(0)
    update = torch.randn(7, 3, 3, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5]).view(1, 3, 1, 1)
    update[:, 2] += update[:, 0]
    images = drawn_images(update, torch.zeros(1, 3, 8, 8), 4000, 0)
    patches = update.double()
    expected = torch.einsum("ochw,odhw->cd", patches, patches)
    drawn = images.double().movedim(1, 0).flatten(1)
    measured = drawn @ drawn.T / drawn.shape[1]
    assert torch.allclose(measured / measured.trace(), expected / expected.trace(), atol=0.02)
    assert abs(float(images.mean())) < 1e-5
    assert abs(float(images.std()) - 1) < 1e-5


def test_images_are_discs_of_one_color_that_do_not_depend_on_anything_else() -> None:
    update = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    images = drawn_images(update, torch.zeros(1, 3, 32, 24), 3, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, drawn_images(update, torch.zeros(1, 3, 32, 24), 3, 0))
    assert not torch.equal(images, drawn_images(update, torch.zeros(1, 3, 32, 24), 3, 1))
    for image in images:
        colors = image.flatten(1).T.unique(dim=0)
        assert 5 < len(colors) <= 41
        alike = (image[:, 1:] == image[:, :-1]).all(0).float().mean()
        assert alike > 0.6
