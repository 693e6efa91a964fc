"""A trained network at work: evaluation, predictions, exports, the table of its layers."""
