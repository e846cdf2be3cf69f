"""What crosses between those who ask (dialects) and those who answer (generation, catalog).

A leaf: it imports nothing of this project, so that a dialect, an engine and a
test's fake can all be written against it without knowing each other.
"""
