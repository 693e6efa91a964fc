"""Trainer of image classifiers: `python -m trainer`."""
