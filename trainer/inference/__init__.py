"""A trained network at work: data of an evaluation, its figures, predictions, exports."""
