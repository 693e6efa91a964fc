"""Metrics, confusion of classes, calibration, pictures of them."""
