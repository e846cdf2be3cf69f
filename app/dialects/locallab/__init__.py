"""The LocalLab API: contract in its published document, clients `locallab-client`."""
