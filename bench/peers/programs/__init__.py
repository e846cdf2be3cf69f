"""One program an engine, run by that engine's own Python; none imports another."""
