"""Image files: which they are, decoded, turned by EXIF, deep ones (TIFF, PNG) scaled to 8 bits."""
