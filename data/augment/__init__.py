"""Augmentation: random changes to batches on the device (flips, crops, colours, mixup, cutmix)."""

from data.augment.policy import Augment

__all__ = ["Augment"]
