"""The HTTP APIs, one folder each; no dialect imports another."""
