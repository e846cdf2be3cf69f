"""Texts in, vectors or scores out: the `Embedder` of the contract."""
