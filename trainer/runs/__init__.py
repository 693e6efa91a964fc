"""Folder of a run: made, locked, read back, mended; runs selected and compared, test readings."""
