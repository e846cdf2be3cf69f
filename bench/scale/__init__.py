"""How many replicas a load takes, on paper: a simulation of replicas behind a router."""
