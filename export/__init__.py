"""Turn a Transformers model into a folder that the server can load.

Uses torch, Transformers and Optimum, which serving does not need. Of the server it uses
`app.manifest`, and `app.runtime` to run the graph that it has made.
"""
