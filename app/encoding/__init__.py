"""Whole texts in, vectors out, on a thread of its own: batches, turns and limits."""
