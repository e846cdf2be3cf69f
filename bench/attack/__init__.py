"""A bounded load of what could keep others waiting, and how those others fare meanwhile."""
