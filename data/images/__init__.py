"""Image files: which they are, decoded to uint8, deep ones scaled to 8 bits."""
