"""Monitoring of a training while it runs: log lines, TensorBoard curves and images, profiles."""
