"""Networks: one file each, and their layers by hand."""
