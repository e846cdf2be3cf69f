"""What the operator's page at `/admin` asks for; no API for others, and not in the document."""
