"""Device, threads, seeds, memory, signals, durable files (fsync), private names of torch."""
