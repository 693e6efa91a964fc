"""Folder of a run: made, locked for one process, read back, mended."""
