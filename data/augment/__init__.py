"""Augmentation: random changes to batches of images on the device."""

from data.augment.policy import Augment

__all__ = ["Augment"]
