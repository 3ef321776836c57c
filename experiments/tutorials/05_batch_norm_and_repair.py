"""Put the statistics of activations right after a merge: batch norm, and REPAIR where there is none."""

# %% A convolution network with batch norm, twice
import torch
from torch import nn

import sinkhorn_rebasin as sr
from experiments.tutorials.digits import accuracy, mlp, test_loader, train_loader, trained
from experiments.tutorials.truth import check


def cnn() -> nn.Module:
    """Return a small network with batch norm."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(24, 10)),
    )


reference, target = trained(cnn, seed=0, epochs=8), trained(cnn, seed=1, epochs=8)
images, _ = next(iter(test_loader()))
spec = sr.discover_symmetry(reference, images[:2])
batches = list(train_loader())

# %% Aligned by activations and merged: its running statistics are those of two other networks
matched = sr.activation_matching(reference, target, spec, data=batches)
aligned = cnn()
aligned.load_state_dict(matched.apply(target))
merged = sr.LinearPath.between(aligned.eval(), reference).module_at(0.5)

# %% They are measured anew; the network that is passed in stays as it is
measured = sr.reset_batch_norm(merged, batches)
print(f"halfway: {accuracy(merged):.3f} as merged, {accuracy(measured):.3f} with new statistics")
check(accuracy(measured) > accuracy(merged), "batch norm needs statistics of the merged network")

# %% Without batch norm, units of a merged network vary too little
plain, other = trained(mlp, seed=0), trained(mlp, seed=1)
spec = sr.discover_symmetry(plain, images[:2])
alignment = sr.weight_matching(plain, other, spec)
moved = mlp().eval()
moved.load_state_dict(alignment.apply(other))
halfway = sr.LinearPath.between(moved, plain).module_at(0.5)

# %% REPAIR gives each unit the mean and deviation that it has in both networks, and leaves a plain network
repaired = sr.repair(halfway, plain, moved, spec, batches, at=0.5)


@torch.no_grad()
def deviation(network: nn.Module) -> float:
    """Return how much the units of the second hidden layer vary over the digits."""
    return float(network[:5](images).std(0).mean())


print(f"deviation of units: {deviation(plain):.3f} and {deviation(moved):.3f} at the ends")
print(f"halfway: {deviation(halfway):.3f} as merged, {deviation(repaired):.3f} with REPAIR")
middle = (deviation(plain) + deviation(moved)) / 2
check(
    abs(deviation(repaired) - middle) < abs(deviation(halfway) - middle),
    "REPAIR brings the deviation of units back to that of the ends",
)
