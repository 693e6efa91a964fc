"""Equal and nearly equal images of a dataset, within and between its splits."""
