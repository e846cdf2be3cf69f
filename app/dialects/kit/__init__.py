"""What every dialect is built from: bodies, framing, streams, refusals, tools, and its record."""
