"""Commands, one file each: arguments, what `resume` refuses, the layer table of `summary`."""
