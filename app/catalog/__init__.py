"""Which models are on disk and which are loaded."""
