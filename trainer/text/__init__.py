"""Text for output: control characters escaped, tables aligned, values formatted as typed."""
