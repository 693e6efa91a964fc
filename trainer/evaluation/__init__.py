"""Metrics, intervals and tests, confusion of classes, calibration, suspicious labels, plots."""
