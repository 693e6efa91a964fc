"""Metrics, confusion of classes, calibration, plots of them."""
