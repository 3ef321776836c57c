"""Train an alignment with a loss of your own."""

# %% A loss is any callable that takes the re-basin and a batch, and returns a scalar
import torch
import torch.nn.functional as F
from torch import Tensor

import sinkhorn_rebasin as sr
from experiments.tutorials.digits import accuracy, mlp, test_loader, train_loader, trained
from experiments.tutorials.truth import check

reference, target = trained(mlp, seed=0), trained(mlp, seed=1)


def teach_the_middle(rebasin: sr.SinkhornRebasin, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Ask the middle for what both ends say, without labels."""
    inputs, _ = batch
    with torch.no_grad():
        said = (rebasin(inputs, at=0.0).softmax(-1) + rebasin(inputs, at=1.0).softmax(-1)) / 2
    return F.kl_div(rebasin(inputs, at=0.5).log_softmax(-1), said, reduction="batchmean")


# %% By hand: the parameters are the scores, and any optimizer trains them
images, _ = next(iter(test_loader()))
rebasin = sr.SinkhornRebasin(reference, target, images[:2])
optimizer = torch.optim.Adam(rebasin.parameters(), lr=0.1)
rebasin.train()
batches = train_loader()
losses = []
for epoch in range(8):
    rebasin.temperature.fill_(float(sr.temperature.geometric(1.0, 0.3)(epoch / 7)))
    for batch in batches:
        loss = teach_the_middle(rebasin, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
first, last = sum(losses[: len(batches)]), sum(losses[-len(batches) :])
print(f"loss in the first and last epoch: {first / len(batches):.3f}, {last / len(batches):.3f}")
check(last < first, "the loss falls")

# %% In eval mode the permutations are hard, and the target computes what it did
rebasin.eval()
with torch.no_grad():
    check(torch.allclose(rebasin(images), target(images), atol=1e-4), "the target's function is the same")

# %% The same loss in one call, with a short recipe
short = sr.Recipe.quick(steps=100, cycles=1, closing_steps=50)
result = sr.align(reference, target, train_loader(), loss=teach_the_middle, recipe=short, progress=False)
naive = sr.LinearPath.between(target, reference).module_at(0.5)
print(f"halfway: {accuracy(naive):.3f} as they are")
print(f"halfway: {accuracy(rebasin.merge(0.5)):.3f} by hand, {accuracy(result.merge(0.5)):.3f} by align")
check(accuracy(rebasin.merge(0.5)) > accuracy(naive), "the trained middle is better than the average")
