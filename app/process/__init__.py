"""The server as a process: its start and its end, its sockets, its logs, and Granian's interfaces.

Knows what an application is, but no route and no model.
"""
