"""Make the table of a GGUF file's names once. Knows nothing about names."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import gguf


@contextmanager
def names_made_once() -> Iterator[None]:
    """Keep the tables that Transformers asks `gguf` for.

    It makes one of all blocks again for each module of the model: a time that grows with the square
    of the blocks, 12 s for a Llama of 30.
    """
    with patch.object(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)):
        yield
