"""Encoders: models that make vectors of texts, and cross-encoders that judge documents."""
