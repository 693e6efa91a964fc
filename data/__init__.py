"""Datasets: read, verified, brought to shape, handed on in batches."""
