"""Commands: one file each, from words to arguments; imports no torch before it must."""
