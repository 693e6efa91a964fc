"""The loop and what it works on: run, step (NaN check, gradient clipping), snapshots, faults."""
