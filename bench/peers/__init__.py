"""Other engines, measured beside ours: their environments, their processes, their figures."""
