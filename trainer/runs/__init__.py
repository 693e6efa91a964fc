"""Folder of a run: made, locked, read back, mended."""
