"""Servers of others that tests start: each as a process of its own in a temporary folder.

Started at first use in each process that runs tests, and ended with it, however that ends.
"""
