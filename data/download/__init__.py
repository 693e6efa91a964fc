"""Downloads: mirrors, resumed where they broke off, verified by MD5."""
