"""What becomes of every type of language model that Transformers knows."""
