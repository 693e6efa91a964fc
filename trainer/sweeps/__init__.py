"""A sweep: its jobs planned, each in a process of its own, here, on Slurm or on Ray; searches."""
