"""Neural network layers by hand: forward and backward in plain NumPy, readable beside the formula.

Only `bridge.py` knows PyTorch; everything else here runs where torch is not installed.
"""
