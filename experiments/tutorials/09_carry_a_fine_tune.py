"""Carry a fine-tune to a new base: what one network learned, added to another one in its own coordinates."""

# %% A base, its fine-tune on turned digits, and a new base from another seed
import tempfile
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import sinkhorn_rebasin as sr
from experiments.data.rotation import rotated
from experiments.tutorials.digits import DATA, mlp, trained
from experiments.tutorials.truth import check
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.training import CarryModule, TemperatureAnnealing

WIDTH = 64
turned = rotated(DATA.train_images, 45.0, "bilinear")
turned_test = rotated(DATA.test_images, 45.0, "bilinear")


def accuracy(network: torch.nn.Module, images: torch.Tensor = turned_test) -> float:
    """Return the share of turned test digits that a network gets right."""
    with torch.no_grad():
        return float((network.eval()(images).argmax(1) == DATA.test_labels).float().mean())


base, new_base = (trained(lambda: mlp(WIDTH), seed).eval() for seed in (0, 1))
tuned = standalone_copy(base)
torch.manual_seed(0)
optimizer = torch.optim.Adam(tuned.parameters(), 1e-3)
for inputs, labels in list(DataLoader(TensorDataset(turned, DATA.train_labels), 100, shuffle=True)) * 15:
    optimizer.zero_grad()
    F.cross_entropy(tuned(inputs), labels).backward()
    optimizer.step()
print(f"base {accuracy(base):.3f}, its fine-tune {accuracy(tuned):.3f}, new base {accuracy(new_base):.3f}")

# %% The difference as it is helps the new base little; carried by an alignment it helps more, without any data
difference = {n: t - dict(base.named_parameters())[n] for n, t in tuned.named_parameters()}
added = standalone_copy(new_base)
with torch.no_grad():
    for name, parameter in added.named_parameters():
        parameter += difference[name]
example = DATA.train_images[:2]
update = sr.carry(tuned, base, new_base, way=sr.carrying.ByWeights(), scale=1.0, example_inputs=example)
carried = update.apply(new_base)
print(update)
print(f"added as it is {accuracy(added):.3f}, carried without data {accuracy(carried):.3f}")

# %% With 200 unlabelled turned digits, the update is fitted layer by layer, and its scale chosen on some of them
with_data = sr.carry(tuned, base, new_base, data=[(turned[i : i + 20],) for i in range(0, 200, 20)])
print(f"carried with 200 unlabelled digits {accuracy(with_data.apply(new_base)):.3f}")

# %% Or any loss trains the alignment, under a Trainer: here the labels of the same 200 digits
rebasin = sr.SinkhornRebasin(new_base, base, example, temperature=0.2)
module = CarryModule(rebasin, tuned, criterion=F.cross_entropy, lr=0.05)
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
annealing = TemperatureAnnealing(lambda part: 0.2 - 0.15 * part)
trainer = lightning.Trainer(
    max_epochs=20, accelerator="cpu", enable_checkpointing=False, callbacks=[annealing], **quiet
)
lightning.seed_everything(0, verbose=False)
labelled, held_out = (
    TensorDataset(turned[part], DATA.train_labels[part]) for part in (slice(200), slice(-300, None))
)
trainer.fit(module, DataLoader(labelled, 50, shuffle=True), DataLoader(held_out, 300))
learned = sr.carry(tuned, base, new_base, rebasin.alignment(), module.scale, example_inputs=example)
print(f"carried by a learned alignment, scale {module.scale:.2f}: {accuracy(learned.apply(new_base)):.3f}")

# %% What it costs on upright digits, and a file that keeps the update
file = Path(tempfile.mkdtemp()) / "update.safetensors"
with_data.save(file)
again = sr.CarriedUpdate.load(file).apply(new_base)
upright = [accuracy(network, DATA.test_images) for network in (new_base, carried, again)]
print(
    f"upright digits: {upright[0]:.3f} before; {upright[1]:.3f} carried without data, {upright[2]:.3f} with"
)

check(accuracy(carried) > max(accuracy(new_base), accuracy(added)), "the update helps once it is carried")
check(accuracy(again) > accuracy(carried), "unlabelled data carry more of it")
