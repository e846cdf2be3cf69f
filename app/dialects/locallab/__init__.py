"""The LocalLab API, as its published document and its client `locallab-client` define it."""
