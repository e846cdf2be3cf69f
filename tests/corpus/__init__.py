"""A corpus of requests and the answers that were recorded for them.

`python -m tests.corpus record` writes the records anew, so that an intended change of an answer is
a visible diff in its commit. `python -m tests.corpus compare --before URL --after URL` asks two
running servers the same greedy requests of the real default model.
"""
