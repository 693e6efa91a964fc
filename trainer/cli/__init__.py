"""Commands, one file each: words of the command line to arguments, and the exit code."""
