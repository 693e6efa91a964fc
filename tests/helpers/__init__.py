"""Helpers of the tests: files made in the formats that the program reads, small runs, processes."""
