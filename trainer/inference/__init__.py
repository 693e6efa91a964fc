"""A trained network at work: evaluate, predict, export, import of weights, table of its layers."""
