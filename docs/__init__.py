"""The manual: pages in Markdown, and what Sphinx makes a site of them with."""
