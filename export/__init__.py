"""Turn a Transformers model into a folder that the server can load.

Knows torch, Transformers and Optimum, which serving does not need. Of the server it knows
`app.manifest`, and `app.runtime` to try the graph.
"""
