"""Continuous batching: token ids in, token ids out. Knows no text, no files, no HTTP."""
