"""Text for people: cleaned of control characters, aligned, values as they are typed."""
