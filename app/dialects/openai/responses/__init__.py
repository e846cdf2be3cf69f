"""`/v1/responses`: answers with items, and what is kept of them for users who signed in."""
