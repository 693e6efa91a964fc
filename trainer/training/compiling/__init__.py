"""compile=step and compile=model: the training step as one compiled graph."""
