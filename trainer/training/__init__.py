"""Training loop and its objects: run, step, batches, snapshots, faults."""
