"""Image data sets as tensors in memory, read from the folders that torchvision's own downloads make."""

from experiments.data.cifar10 import load_cifar10
from experiments.data.data_module import InMemoryDataModule
from experiments.data.digits import load_digits
from experiments.data.image_data import ImageData
from experiments.data.mnist import load_mnist

__all__ = ["ImageData", "InMemoryDataModule", "load_cifar10", "load_digits", "load_mnist"]
