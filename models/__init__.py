"""Networks: one file each, and their initialisation."""
