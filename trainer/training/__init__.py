"""The loop, and what it works on: run, step, batches, snapshots, faults."""
