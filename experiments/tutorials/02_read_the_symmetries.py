"""Read the symmetries of a network, and move along one by hand."""

# %% A network with a residual connection: its stream and both ends of the block share one order
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from experiments.tutorials.truth import check


class Block(nn.Module):
    """A residual block between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Return ten scores."""
        stream = self.first(x.flatten(1))
        scores: Tensor = self.last(stream + self.down(self.up(stream).relu()))
        return scores


torch.manual_seed(0)
network, images = Block(), torch.randn(5, 1, 8, 8)

# %% One run finds what may be permuted, and why the rest may not
spec = sr.discover_symmetry(network, images)
print(spec)

# %% A group is one permutation. Its slots are the axes that it acts on, all at once
for group in spec.groups:
    print(group, [f"{slot.tensor}{list(slot.axes)}" for slot in spec.slots_of(group.name)])
stream = {(slot.tensor, *slot.axes) for slot in spec.slots_of("first")}
check(("down.weight", 0) in stream, "the block writes to the stream in the stream's own order")

# %% The symmetries are proven with numbers
error = sr.verify_symmetry(network, spec, images)
check(error < 1e-9, "any permutation of the groups leaves the output as it is")

# %% A random permutation moves nearly all weights and changes nothing
order = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
moved = sr.permute_state(network.state_dict(), spec, order)
twin = Block()
twin.load_state_dict(moved)
check(not torch.allclose(twin.first.weight, network.first.weight), "the weights are others")
check(torch.allclose(twin(images), network(images), atol=1e-5), "the function is the same")

# %% Weight matching finds the way back
found = sr.weight_matching(network, twin, spec)
print(found)
back = found.apply(twin)
check(
    all(torch.equal(back[name], tensor) for name, tensor in network.state_dict().items()),
    "weight matching undoes a random permutation",
)
