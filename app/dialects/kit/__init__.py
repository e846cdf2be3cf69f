"""What dialects are built from: bodies, framing, streams, refusals, tools, the `Dialect` record."""
