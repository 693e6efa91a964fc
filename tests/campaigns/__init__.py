"""Campaigns: what the tests try in a few cases, in thousands of them."""
