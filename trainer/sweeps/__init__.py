"""A sweep: its jobs planned, each in a process of its own, resumed and told of."""
