"""How the tables came to be, one step per file, applied at start.

A new step: copy the newest file in versions/, raise its number, write `upgrade`. A released
step is never edited. There is no downgrade: go back by restoring a copy of the database.
"""
