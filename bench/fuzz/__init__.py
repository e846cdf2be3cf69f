"""Mutated requests over all endpoints: nothing that a client sends may be the server's failure."""
