"""Text for people: cleaned of terminal escapes, aligned, values as they are typed."""
