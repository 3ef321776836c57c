"""Scale and negate units where that changes nothing."""

# %% Units that pass through ReLU may be scaled, those that pass through tanh negated
import torch
from torch import nn
from torch.func import functional_call

import sinkhorn_rebasin as sr
from experiments.tutorials.digits import mlp, test_loader, train_loader, trained
from experiments.tutorials.truth import check

images, _ = next(iter(test_loader()))
network = trained(mlp, seed=0)
spec = sr.discover_symmetry(network, images[:4])
rescaling = sr.discover_rescaling(network, spec, images[:4])
print(rescaling)
check(all(rescaling.of(name, "positive") for name in spec.names), "ReLU units may be scaled")

# %% Incoming weights grow, outgoing ones shrink by the same factor
generator = torch.Generator().manual_seed(0)
log_scales = {
    name: 0.5 * torch.randn(shape, generator=generator) for name, shape in rescaling.shapes(spec).items()
}
state = sr.rescale_state(network.state_dict(), spec, rescaling, log_scales)
with torch.no_grad():
    same = torch.allclose(functional_call(network, state, images), network(images), atol=1e-3)
check(same, "scaled units compute the same function")

# %% Two networks that differ in their scales are brought to the same ones
twin = mlp().eval()
twin.load_state_dict(state)
normal, other = (sr.normalize_scales(net, spec, rescaling) for net in (network, twin))
check(
    all(
        torch.allclose(a, b, atol=1e-4) for a, b in zip(normal.parameters(), other.parameters(), strict=True)
    ),
    "networks that differ in scales alone have one normal form",
)

# %% Signs: weight matching finds those of tanh units together with their order
odd = trained(lambda: mlp(activation=nn.Tanh), seed=0)
spec = sr.discover_symmetry(odd, images[:4])
flips = sr.discover_rescaling(odd, spec, images[:4])
signs = {
    name: torch.randint(2, shape, generator=generator) * 2.0 - 1
    for name, shape in flips.shapes(spec, "sign").items()
}
negated = sr.rescale_state(odd.state_dict(), spec, flips, signs=signs)
moved = sr.permute_state(negated, spec, sr.random_permutations(spec, generator=generator))
found = sr.weight_matching(odd, moved, spec, rescaling=flips)
print(found)
back = found.apply(moved)
check(
    all(torch.allclose(back[name], tensor) for name, tensor in odd.state_dict().items()),
    "the order and the signs of all units are found",
)

# %% `align` learns scales and signs by default, and permutations alone when asked
peer = trained(mlp, seed=1)
short = sr.Recipe.quick(steps=100, closing_steps=100)
barriers = {}
for rescale in (False, True):
    result = sr.align(network, peer, train_loader(), rescale=rescale, recipe=short, progress=False)
    barriers[rescale] = result.after.barrier
    print(f"rescale={rescale}: barrier {barriers[rescale]:.3f}")
check(barriers[True] < barriers[False], "scales lower the barrier further")
