"""Datasets: read, verified, brought to shape, validation split carved out, loaded in batches."""
