"""Machine: device, threads, seeds, memory, signals, files, private names of torch."""
