"""Checkpoints whose weights are quantised already, read as numbers, one weight at a time."""
