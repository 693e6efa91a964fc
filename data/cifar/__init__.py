"""CIFAR-10 and CIFAR-100, read without unpickling."""

from data.cifar.load import CIFAR10, CIFAR100, load_cifar10, load_cifar100

__all__ = ["CIFAR10", "CIFAR100", "load_cifar10", "load_cifar100"]
