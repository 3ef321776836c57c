"""Data sets as tensors in memory: images in torchvision's own folders, and text that Python brings along."""

from experiments.data.cifar10 import load_cifar10
from experiments.data.data_module import InMemoryDataModule
from experiments.data.digits import load_digits
from experiments.data.image_data import ImageData
from experiments.data.mnist import load_mnist
from experiments.data.source_text import load_source_text

__all__ = ["ImageData", "InMemoryDataModule", "load_cifar10", "load_digits", "load_mnist", "load_source_text"]
