"""Configuration: every key with its range, composing by Hydra, and texts read out of files."""
