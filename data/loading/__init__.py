"""Batches on the device: gathered, augmented, normalised."""
