"""What operators' tools ask: metrics, and whether the process lives and can take requests."""
