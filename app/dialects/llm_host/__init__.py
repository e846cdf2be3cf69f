"""LLM Host (HumbleBee): accounts, and text for a query."""
