"""Measurements. Figures from here go to LOG.md as ratios; none is asserted in a test."""
