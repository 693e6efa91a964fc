"""Examples without torch: train on digits, classify a photograph."""
