"""Metrics, confusion of classes, calibration, plots."""
