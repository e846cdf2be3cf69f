"""Measurements. Their figures go to LOG.md as ratios; no test asserts one."""
