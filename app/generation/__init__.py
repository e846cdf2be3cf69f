"""Text in, text out: chat templates, tokenizing, detokenizing, stop strings."""
