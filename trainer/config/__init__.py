"""Configuration: keys and ranges, Hydra, what resume may change, targets a checkpoint may name."""
