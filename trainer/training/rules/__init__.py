"""Rules: what a training does beside its steps, such as averaging weights or stopping early."""
