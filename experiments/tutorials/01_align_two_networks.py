"""Align two networks in one call, and merge them."""

# %% Two networks of one architecture, trained from different seeds
import torch

import sinkhorn_rebasin as sr
from experiments.tutorials.digits import accuracy, mlp, test_loader, train_loader, trained
from experiments.tutorials.truth import check

reference, target = trained(mlp, seed=0), trained(mlp, seed=1)
print(f"accuracies: {accuracy(reference):.3f} and {accuracy(target):.3f}")

# %% Their average is no good network: the loss has a barrier between them
before = sr.evaluate_path((target, reference), test_loader())
print(before)

# %% One call aligns them. `Recipe` says how long: this one is short
result = sr.align(
    reference, target, train_loader(), recipe=sr.Recipe.quick(steps=200, closing_steps=100), progress=False
)
print(result)

# %% The aligned target computes what it did
aligned = result.to_model()
images, _ = next(iter(test_loader()))
with torch.no_grad():
    check(torch.allclose(aligned(images), target(images), atol=1e-4), "the target's function is the same")

# %% And now the average is good
after = sr.evaluate_path((aligned, reference), test_loader())
merged = result.merge(0.5)
print(f"barrier {before.barrier:.3f} before, {after.barrier:.3f} after; merged: {accuracy(merged):.3f}")

# %% Its weights are half of each
halves = zip(merged.parameters(), aligned.parameters(), reference.parameters(), strict=True)
check(
    all(torch.allclose(half, (one + other) / 2, atol=1e-6) for half, one, other in halves),
    "the merged weights are the mean of the aligned target's and the reference's",
)
check(after.barrier < before.barrier / 2, "aligning more than halves the barrier")
