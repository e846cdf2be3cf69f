"""The real application with another decoder than its own.

Granian finds an application by its module, so each of them has a module of its own. They make it
when they are asked for it: tests import their constants into a process with real decoders.
"""

import app as server
from app.catalog import loaded
from app.runtime.ort_decoder import OrtDecoder


def application_with(decoder: type[OrtDecoder]) -> object:
    """Make the application whose models all run on such a decoder."""
    vars(loaded)["OrtDecoder"] = decoder
    return server.app
