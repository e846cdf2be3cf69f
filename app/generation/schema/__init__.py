"""A JSON Schema, part by part, as the grammar library takes it: patterns, numbers, references."""
