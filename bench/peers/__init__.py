"""Other engines beside ours: their environments, their processes and their figures."""
