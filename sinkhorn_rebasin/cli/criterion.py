"""The loss that the command measures: the model's own, else cross entropy."""

from sinkhorn_rebasin.networks.task_loss import task_loss as loss_of

__all__ = ["loss_of"]
