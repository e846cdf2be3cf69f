"""Fetch a model from the Hugging Face Hub, or from what answers at HF_ENDPOINT as it does.

Only what an export reads is fetched: weights as safetensors or GGUF, never pickles, which could
run code. What has been fetched is kept in the Hub's own cache, and what a broken connection left
is continued. Knows nothing about what the files hold.
"""

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from requests.exceptions import ChunkedEncodingError

from export.errors import SourceUnusable
from export.file_checks import sentence
from export.gguf_split import PART, name_of

PATTERNS: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
ADDRESS: Final = re.compile(
    r"(?P<model>[^/@]+/[^/@]+)(?:/(?P<file>[^@]+\.gguf))?(?:@(?P<revision>.+))?", re.IGNORECASE
)
"""`publisher/name`, one of its GGUF files behind another slash, a revision behind an @."""
MAX_BREAKS: Final = 5
"""Times that a connection may break off before the download is given up."""


def is_address(source: str) -> bool:
    """Whether this is a name on the Hub: two or three parts, and nothing of that name is here."""
    match = ADDRESS.fullmatch(source)
    if match is None or source.startswith((".", "~")) or Path(source).exists():
        return False
    # of two parts, it is the path of a file that isn't there
    return not match["model"].lower().endswith(".gguf")


def model_id_of(address: str) -> str:
    """The `publisher/name` that a model is served by; a GGUF file gives the name."""
    match = ADDRESS.fullmatch(address)
    assert match is not None, address
    if match["file"] is None:
        return match["model"]
    return f"{match['model'].partition('/')[0]}/{name_of(Path(match['file']))}"


def download(address: str) -> Path:
    """Fetch a model's folder, or the GGUF file that the address names, with all its parts.

    Raises:
        SourceUnusable: it isn't there, may not be read, or the Hub can't be reached.
    """
    match = ADDRESS.fullmatch(address)
    assert match is not None, address
    model, file, revision = match["model"], match["file"], match["revision"]
    try:
        if file is None:
            return _continued(
                lambda: snapshot_download(model, revision=revision, allow_patterns=[*PATTERNS])
            )
        fetched = [
            _continued(partial(hf_hub_download, model, name, revision=revision))
            for name in _parts(file)
        ]
        return fetched[0]
    except GatedRepoError as error:
        raise SourceUnusable(
            f"{model} is gated: accept its conditions at {constants.ENDPOINT}/{model}, then set "
            "HF_TOKEN to a token of that account"
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceUnusable(
            f"there is neither a file, nor a folder, nor a model {model} at {constants.ENDPOINT}; "
            "if it is private, set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceUnusable(f"{model} has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise SourceUnusable(
            f"{constants.ENDPOINT} can't be reached, and {model} has not been fetched before: "
            f"{sentence(error.__cause__ or error)}"
        ) from error
    except EntryNotFoundError as error:
        raise SourceUnusable(f"{model} has no file {file!r}") from error
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise SourceUnusable(f"{model} could not be fetched: {sentence(error)}") from error


def _continued(fetch: Callable[[], str]) -> Path:
    """Fetch, and go on where a connection broke off.

    The library begins again by itself only when a connection can't be made.
    """
    for _ in range(MAX_BREAKS):
        try:
            return Path(fetch())
        except ChunkedEncodingError as error:
            sys.stderr.write(f"\nthe connection broke off, going on: {sentence(error)}\n")
    return Path(fetch())


def _parts(file: str) -> list[str]:
    """The file itself, or all files that it is one part of."""
    match = PART.fullmatch(file)
    if match is None:
        return [file]
    count = int(match["count"])
    return [f"{match['stem']}-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]
