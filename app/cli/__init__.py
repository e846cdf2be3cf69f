"""The command line, `llmhost`. Above everything else: only `__main__.py` knows it."""
