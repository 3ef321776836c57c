"""Learn one task after the other without losing the first."""

# %% Five tasks of two digits each; all ten outputs are shared
from functools import partial

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from experiments.tutorials.digits import DATA, mlp
from experiments.tutorials.truth import check
from sinkhorn_rebasin.metrics import average_accuracy, forgetting
from sinkhorn_rebasin.training import continual

PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]


class TwoDigits(lightning.LightningDataModule):
    """The images of two digits."""

    def __init__(self, digits: tuple[int, int]) -> None:
        super().__init__()
        self.digits = torch.tensor(digits)

    def _of_digits(self, images: torch.Tensor, labels: torch.Tensor) -> TensorDataset:
        kept = torch.isin(labels, self.digits)
        return TensorDataset(images[kept], labels[kept])

    def train_dataloader(self) -> DataLoader:
        """Return the training images."""
        return DataLoader(self._of_digits(DATA.train_images, DATA.train_labels), 32, shuffle=True)

    def test_dataloader(self) -> DataLoader:
        """Return the test images."""
        return DataLoader(self._of_digits(DATA.test_images, DATA.test_labels), 500)


def trainer() -> lightning.Trainer:
    """Return the Trainer of one task."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(max_epochs=12, accelerator="cpu", enable_checkpointing=False, **quiet)


def learned(learner: continual.ContinualLearner) -> torch.Tensor:
    """Return the accuracies: row i holds those on all tasks after learning task i."""
    lightning.seed_everything(0, verbose=False)
    return continual.learn_tasks(learner, [TwoDigits(pair) for pair in PAIRS], trainer)


# %% Without a memory, each task replaces the one before
torch.manual_seed(0)
network = mlp()
plain = learned(continual.FineTuning(network, tasks=len(PAIRS)))
print(f"fine-tuning: {average_accuracy(plain):.3f}, forgets {forgetting(plain):.3f}")

# %% On the segment between the network and its re-based self, with five samples a class remembered
images = DATA.train_images[:2]
adamw = partial(torch.optim.AdamW, lr=0.004, weight_decay=0.0)
learner = continual.DistillingRebasinLearner(network, len(PAIRS), images, per_class=5, optimizer=adamw)
kept = learned(learner)
print(f"re-basin: {average_accuracy(kept):.3f}, forgets {forgetting(kept):.3f}")
check(average_accuracy(kept) > average_accuracy(plain) + 0.2, "the re-basin learner keeps its old tasks")

# %% What is left is a plain network, and the one passed in is as it was
torch.manual_seed(0)
before = mlp().state_dict()
check(
    all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items()),
    "the network that was passed in has not changed",
)
